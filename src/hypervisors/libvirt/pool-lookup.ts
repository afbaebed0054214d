import { setTimeout as sleep } from "node:timers/promises";
import {
  type Pool,
  storagePoolLookupByName,
  storagePoolRefresh,
  storageVolGetXmlDesc,
  storageVolLookupByName,
  type Volume,
} from "../../libvirt-rpc/index.ts";
import { type Call, HypervisorError, type VolumeRef } from "../hypervisor.ts";
import { isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { parseVolume, type VolumeFacts } from "./parse-volume.ts";

/** A pool cannot be read anew while a volume is made in it; that takes moments. */
const REFRESH_TRIES = 10;
const REFRESH_PAUSE_MS = 300;

/** @throws HypervisorError `not-found` */
export async function findPool(calls: HostCalls, name: string, call: Call): Promise<Pool> {
  return (await calls.read(storagePoolLookupByName, { name }, call)).pool;
}

/** Null when the pool does not know a volume of this name. Rejects (`not-found`) when there is no such pool. */
export async function findVolume(calls: HostCalls, ref: VolumeRef, call: Call): Promise<Volume | null> {
  const pool = await findPool(calls, ref.pool, call);
  return await volumeIn(calls, pool, ref.name, call);
}

export async function volumeIn(
  calls: HostCalls,
  pool: Pool,
  name: string,
  call: Call,
): Promise<Volume | null> {
  return await orNull(async () => (await calls.read(storageVolLookupByName, { pool, name }, call)).volume);
}

/** What libvirt finds in the volume's file now; null when it is gone. */
export async function readVolume(calls: HostCalls, volume: Volume, call: Call): Promise<VolumeFacts | null> {
  return await orNull(async () =>
    parseVolume((await calls.read(storageVolGetXmlDesc, { volume, flags: 0 }, call)).xml),
  );
}

export function noSuchVolume(ref: VolumeRef): HypervisorError {
  return new HypervisorError("not-found", `pool '${ref.pool}' has no volume named '${ref.name}'`);
}

/** Reads the pool's directory anew. */
export async function refreshPool(calls: HostCalls, pool: Pool, call: Call): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await calls.change(storagePoolRefresh, { pool, flags: 0 }, call);
      return;
    } catch (error) {
      const isBusy = error instanceof HypervisorError && error.reason === "busy";
      if (!isBusy || attempt === REFRESH_TRIES) throw error;
    }
    await sleep(REFRESH_PAUSE_MS);
  }
}

async function orNull<Result>(read: () => Promise<Result>): Promise<Result | null> {
  try {
    return await read();
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

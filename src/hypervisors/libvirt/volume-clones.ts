import { setTimeout as sleep } from "node:timers/promises";
import {
  type Pool,
  storageVolCreateXml,
  storageVolCreateXmlFrom,
  storageVolDelete,
  type Volume,
} from "../../libvirt-rpc/index.ts";
import {
  type Call,
  HypervisorError,
  type ObservedVolume,
  type VolumeFormat,
  type VolumeRef,
  type VolumeSpec,
} from "../hypervisor.ts";
import { isBusy, isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import type { VolumeFacts } from "./parse-volume.ts";
import { findPool, noSuchVolume, readVolume, refreshPool, volumeIn } from "./pool-lookup.ts";
import { volumeXml } from "./volume-xml.ts";

/** Volumes made of others on the host itself. */

/** Shares the blocks where the file system can (btrfs, xfs). */
const REFLINK = 2;
const LOOK_AGAIN_MS = 500;

/** See copyVolume in hypervisor.ts. */
export async function copyVolume(
  calls: HostCalls,
  spec: VolumeSpec,
  source: VolumeRef,
  call: Call,
): Promise<ObservedVolume> {
  return await makeOf(calls, spec, source, call, async (pool, cloneVolume) => {
    const args = { pool, xml: volumeXml(spec), cloneVolume };
    try {
      await calls.changeSlowly(storageVolCreateXmlFrom, { ...args, flags: REFLINK }, call);
    } catch (error) {
      // A file system that cannot share blocks says so by an error like any other, and leaves no volume.
      if (!(error instanceof HypervisorError) || !MAY_BE_NO_REFLINK.has(error.reason)) throw error;
      await calls.changeSlowly(storageVolCreateXmlFrom, { ...args, flags: 0 }, call);
    }
  });
}

const MAY_BE_NO_REFLINK: ReadonlySet<HypervisorError["reason"]> = new Set(["failed", "unsupported"]);

/** See overlayVolume in hypervisor.ts. */
export async function overlayVolume(
  calls: HostCalls,
  spec: VolumeSpec,
  base: VolumeRef & { readonly format: VolumeFormat },
  call: Call,
): Promise<ObservedVolume> {
  return await makeOf(calls, spec, base, call, async (pool, _volume, { path }) => {
    const xml = volumeXml(spec, { path, format: base.format });
    await calls.change(storageVolCreateXml, { pool, xml, flags: 0 }, call);
  });
}

async function makeOf(
  calls: HostCalls,
  spec: VolumeSpec,
  source: VolumeRef,
  call: Call,
  make: (pool: Pool, source: Volume, facts: VolumeFacts) => Promise<void>,
): Promise<ObservedVolume> {
  const pool = await findPool(calls, spec.pool, call);
  const volume = await volumeIn(calls, pool, source.name, call);
  const facts = volume === null ? null : await readVolume(calls, volume, call);
  if (volume === null || facts === null) throw noSuchVolume(source);
  await removeEarlier(calls, pool, spec.name, call);
  try {
    await make(pool, volume, facts);
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.reason !== "already-exists") throw error;
    // A file of this name that the pool did not know yet.
    await refreshPool(calls, pool, call);
    await removeEarlier(calls, pool, spec.name, call);
    await make(pool, volume, facts);
  }
  const made = await volumeIn(calls, pool, spec.name, call);
  const seen = made === null ? null : await readVolume(calls, made, call);
  if (seen === null) throw noSuchVolume(spec);
  const { name, path, capacityBytes, allocationBytes } = seen;
  return { pool: spec.pool, name, path, capacityBytes, allocationBytes };
}

/** Removes what an earlier call made of it; one that is still at it on the host is waited for. */
async function removeEarlier(calls: HostCalls, pool: Pool, name: string, call: Call): Promise<void> {
  const until = performance.now() + call.timeoutMs;
  for (;;) {
    const volume = await volumeIn(calls, pool, name, call);
    if (volume === null) return;
    try {
      await calls.change(storageVolDelete, { volume, flags: 0 }, call);
      return;
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isBusy(error) || performance.now() > until) throw error;
    }
    await sleep(LOOK_AGAIN_MS, undefined, { signal: call.signal });
  }
}

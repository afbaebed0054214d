import {
  storagePoolListAllVolumes,
  storageVolCreateXml,
  storageVolDelete,
  storageVolResize,
  storageVolUpload,
  type Volume,
} from "../../libvirt-rpc/index.ts";
import {
  type Call,
  HypervisorError,
  type ObservedVolume,
  type VolumeAbility,
  type VolumeRef,
  type VolumeSpec,
} from "../hypervisor.ts";
import { isNotFound } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import type { VolumeFacts } from "./parse-volume.ts";
import { findPool, findVolume, noSuchVolume, readVolume, refreshPool, volumeIn } from "./pool-lookup.ts";
import { volumeXml } from "./volume-xml.ts";

export function volumeAbility(lanes: Lanes): VolumeAbility {
  return {
    observeVolume: (ref, call) => observeVolume(lanes, ref, call),
    createVolume: (spec, call) => createVolume(lanes, spec, call),
    uploadVolume: (ref, source, sizeBytes, call) => uploadVolume(lanes, ref, source, sizeBytes, call),
    growVolume: (ref, capacityBytes, call) => growVolume(lanes, ref, capacityBytes, call),
    deleteVolume: (ref, call) => deleteVolume(lanes, ref, call),
    listVolumes: (pool, prefix, call) => listVolumes(lanes, pool, prefix, call),
  };
}

async function observeVolume(lanes: Lanes, ref: VolumeRef, call: Call): Promise<ObservedVolume | null> {
  const volume = await findVolume(lanes, ref, call);
  const facts = volume === null ? null : await readVolume(lanes, volume, call);
  return facts === null ? null : toObserved(ref.pool, facts);
}

async function createVolume(lanes: Lanes, spec: VolumeSpec, call: Call): Promise<ObservedVolume> {
  const found = await observeVolume(lanes, spec, call);
  if (found !== null) return found;
  const pool = await findPool(lanes, spec.pool, call);
  try {
    await lanes.change(storageVolCreateXml, { pool, xml: volumeXml(spec), flags: 0 }, call);
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.reason !== "already-exists") throw error;
    // A file of this name that the pool did not know yet, or one that was made just now.
    await refreshPool(lanes, pool, call);
  }
  const created = await observeVolume(lanes, spec, call);
  if (created === null) throw noSuchVolume(spec);
  return created;
}

/**
 * A qcow2 image is written as it is: its file takes the place of the empty one, header and all. What an earlier,
 * broken-off upload left is overwritten from the beginning.
 */
async function uploadVolume(
  lanes: Lanes,
  ref: VolumeRef,
  source: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  call: Call,
): Promise<void> {
  const volume = await requireKnown(lanes, ref, call);
  const range = { volume, offset: 0n, length: BigInt(sizeBytes), flags: 0 };
  await lanes.stream(call, (connection) =>
    connection.upload(storageVolUpload, range, exactly(source, sizeBytes), call),
  );
}

/** Passes the source on, and fails when it holds another amount than was said. */
async function* exactly(source: AsyncIterable<Uint8Array>, sizeBytes: number): AsyncGenerator<Uint8Array> {
  let given = 0;
  for await (const chunk of source) {
    given += chunk.byteLength;
    if (given > sizeBytes) throw wrongAmount(sizeBytes, `more than that`);
    yield chunk;
  }
  if (given < sizeBytes) throw wrongAmount(sizeBytes, `${given} bytes`);
}

function wrongAmount(sizeBytes: number, got: string): HypervisorError {
  return new HypervisorError(
    "invalid-spec",
    `the upload was announced with ${sizeBytes} bytes, but its source gave ${got}`,
  );
}

async function growVolume(lanes: Lanes, ref: VolumeRef, capacityBytes: number, call: Call): Promise<void> {
  const volume = await requireKnown(lanes, ref, call);
  const facts = await readVolume(lanes, volume, call);
  if (facts === null) throw noSuchVolume(ref);
  if (facts.capacityBytes >= capacityBytes) return;
  await lanes.change(storageVolResize, { volume, capacity: BigInt(capacityBytes), flags: 0 }, call);
}

async function deleteVolume(lanes: Lanes, ref: VolumeRef, call: Call): Promise<void> {
  const volume = await findVolume(lanes, ref, call);
  if (volume === null) return;
  try {
    await lanes.change(storageVolDelete, { volume, flags: 0 }, call);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function listVolumes(
  lanes: Lanes,
  poolName: string,
  prefix: string,
  call: Call,
): Promise<readonly ObservedVolume[]> {
  const pool = await findPool(lanes, poolName, call);
  await refreshPool(lanes, pool, call);
  const { volumes } = await lanes.read(storagePoolListAllVolumes, { pool, flags: 0 }, call);
  const found = await Promise.all(
    volumes.filter(({ name }) => name.startsWith(prefix)).map((volume) => readVolume(lanes, volume, call)),
  );
  return found.filter((facts) => facts !== null).map((facts) => toObserved(poolName, facts));
}

async function requireKnown(lanes: Lanes, ref: VolumeRef, call: Call): Promise<Volume> {
  const pool = await findPool(lanes, ref.pool, call);
  const volume = await volumeIn(lanes, pool, ref.name, call);
  if (volume === null) throw noSuchVolume(ref);
  return volume;
}

function toObserved(pool: string, facts: VolumeFacts): ObservedVolume {
  const { name, path, capacityBytes, allocationBytes } = facts;
  return { pool, name, path, capacityBytes, allocationBytes };
}

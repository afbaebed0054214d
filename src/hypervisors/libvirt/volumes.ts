import {
  storagePoolListAllVolumes,
  storageVolCreateXml,
  storageVolDelete,
  storageVolGetInfoFlags,
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
import { exactly } from "../upload-source.ts";
import { isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import type { VolumeFacts } from "./parse-volume.ts";
import { findPool, findVolume, noSuchVolume, readVolume, refreshPool, volumeIn } from "./pool-lookup.ts";
import { copyVolume, overlayVolume } from "./volume-clones.ts";
import { volumeXml } from "./volume-xml.ts";

export function volumeAbility(calls: HostCalls): VolumeAbility {
  return {
    observeVolume: (ref, call) => observeVolume(calls, ref, call),
    createVolume: (spec, call) => createVolume(calls, spec, call),
    uploadVolume: (ref, source, sizeBytes, call) =>
      uploadPart(calls, ref, source, { offsetBytes: 0, sizeBytes }, call),
    growVolume: (ref, capacityBytes, call) => growVolume(calls, ref, capacityBytes, call),
    deleteVolume: (ref, call) => deleteVolume(calls, ref, call),
    listVolumes: (pool, prefix, call) => listVolumes(calls, pool, prefix, call),
    copyVolume: (spec, source, call) => copyVolume(calls, spec, source, call),
    overlayVolume: (spec, base, call) => overlayVolume(calls, spec, base, call),
    uploadPart: (ref, source, part, call) => uploadPart(calls, ref, source, part, call),
  };
}

async function observeVolume(calls: HostCalls, ref: VolumeRef, call: Call): Promise<ObservedVolume | null> {
  const volume = await findVolume(calls, ref, call);
  const facts = volume === null ? null : await readVolume(calls, volume, call);
  return facts === null ? null : toObserved(ref.pool, facts);
}

async function createVolume(calls: HostCalls, spec: VolumeSpec, call: Call): Promise<ObservedVolume> {
  const found = await observeVolume(calls, spec, call);
  if (found !== null) return found;
  const pool = await findPool(calls, spec.pool, call);
  try {
    await calls.change(storageVolCreateXml, { pool, xml: volumeXml(spec), flags: 0 }, call);
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.reason !== "already-exists") throw error;
    // A file of this name that the pool did not know yet, or one that was made just now.
    await refreshPool(calls, pool, call);
  }
  const created = await observeVolume(calls, spec, call);
  if (created === null) throw noSuchVolume(spec);
  return created;
}

/**
 * A qcow2 image is written as it is: its file takes the place of the empty one, header and all. What an earlier,
 * broken-off upload left is overwritten from the part's beginning.
 */
async function uploadPart(
  calls: HostCalls,
  ref: VolumeRef,
  source: AsyncIterable<Uint8Array>,
  { offsetBytes, sizeBytes }: { readonly offsetBytes: number; readonly sizeBytes: number },
  call: Call,
): Promise<void> {
  const volume = await requireKnown(calls, ref, call);
  const range = { volume, offset: BigInt(offsetBytes), length: BigInt(sizeBytes), flags: 0 };
  await calls.stream(call, async (connection) => {
    const lost = new AbortController();
    const forget = connection.onClose((error) => {
      lost.abort(error);
    });
    const content = exactly(source, sizeBytes, AbortSignal.any([call.signal, lost.signal]));
    try {
      await connection.upload(storageVolUpload, range, content, call);
    } finally {
      forget();
    }
  });
  await requireArrived(calls, volume, offsetBytes + sizeBytes, call);
}

/** `allocation` is how long the file is. */
const PHYSICAL_SIZE = 1;

/** libvirt has said that it wrote all; what its file system says is asked too. */
async function requireArrived(
  calls: HostCalls,
  volume: Volume,
  leastBytes: number,
  call: Call,
): Promise<void> {
  const args = { volume, flags: PHYSICAL_SIZE };
  const { allocation } = await calls.read(storageVolGetInfoFlags, args, call);
  if (allocation >= BigInt(leastBytes)) return;
  throw new HypervisorError(
    "failed",
    `volume '${volume.name}' has ${allocation} bytes on the host after ${leastBytes} were written`,
  );
}

async function growVolume(
  calls: HostCalls,
  ref: VolumeRef,
  capacityBytes: number,
  call: Call,
): Promise<void> {
  const volume = await requireKnown(calls, ref, call);
  const facts = await readVolume(calls, volume, call);
  if (facts === null) throw noSuchVolume(ref);
  if (facts.capacityBytes >= capacityBytes) return;
  await calls.change(storageVolResize, { volume, capacity: BigInt(capacityBytes), flags: 0 }, call);
}

async function deleteVolume(calls: HostCalls, ref: VolumeRef, call: Call): Promise<void> {
  const volume = await findVolume(calls, ref, call);
  if (volume === null) return;
  try {
    await calls.change(storageVolDelete, { volume, flags: 0 }, call);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function listVolumes(
  calls: HostCalls,
  poolName: string,
  prefix: string,
  call: Call,
): Promise<readonly ObservedVolume[]> {
  const pool = await findPool(calls, poolName, call);
  await refreshPool(calls, pool, call);
  const { volumes } = await calls.read(storagePoolListAllVolumes, { pool, flags: 0 }, call);
  const found = await Promise.all(
    volumes.filter(({ name }) => name.startsWith(prefix)).map((volume) => readVolume(calls, volume, call)),
  );
  return found.filter((facts) => facts !== null).map((facts) => toObserved(poolName, facts));
}

async function requireKnown(calls: HostCalls, ref: VolumeRef, call: Call): Promise<Volume> {
  const pool = await findPool(calls, ref.pool, call);
  const volume = await volumeIn(calls, pool, ref.name, call);
  if (volume === null) throw noSuchVolume(ref);
  return volume;
}

function toObserved(pool: string, facts: VolumeFacts): ObservedVolume {
  const { name, path, capacityBytes, allocationBytes } = facts;
  return { pool, name, path, capacityBytes, allocationBytes };
}

import { createHash } from "node:crypto";
import {
  type Call,
  HypervisorError,
  type ObservedVolume,
  type VolumeAbility,
  type VolumeRef,
  type VolumeSpec,
} from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import { SIM_POOL } from "./sim-facts.ts";
import { type SimLife, withinLimits } from "./sim-life.ts";
import {
  type DigestRow,
  READ_DIGEST,
  READ_VOLUME,
  READ_VOLUMES,
  type VolumeRow,
  type VolumesRow,
  type VolumeValue,
} from "./sim-reads-store.ts";
import type { SimSettings } from "./sim-uri.ts";

const GIB = 2 ** 30;
/** What an empty volume takes up: a block of a sparse file, or the tables of an empty qcow2 image. */
const EMPTY_BYTES = { raw: 4096, qcow2: 196_608 } as const;

/** Where a simulated host pretends to keep its pool. */
export function simPoolPath(settings: SimSettings): string {
  return `/var/lib/drover-sim/${settings.name}/${SIM_POOL}`;
}

export function simPoolBytes(settings: SimSettings): number {
  return settings.poolGib * GIB;
}

/** The volumes of a simulated host: sizes are kept, contents are not. */
export function simVolumes(settings: SimSettings, calls: SimCalls, life: SimLife): VolumeAbility {
  const poolBytes = simPoolBytes(settings);
  const observed = (value: VolumeValue): ObservedVolume => ({
    pool: SIM_POOL,
    name: value.name,
    path: `${simPoolPath(settings)}/${value.name}`,
    capacityBytes: value.capacityBytes,
    allocationBytes: value.allocationBytes,
  });
  const clone = async (
    kind: "copyVolume" | "overlayVolume",
    spec: VolumeSpec,
    source: VolumeRef,
    call: Call,
  ): Promise<ObservedVolume> => {
    requirePool(spec.pool);
    requireSize(spec.capacityBytes);
    const { pool, name, format, capacityBytes } = spec;
    const isOverlay = kind === "overlayVolume";
    const made = [pool, name, format, capacityBytes];
    const args = [...made, source.name, isOverlay, EMPTY_BYTES[format], poolBytes];
    return observed((await calls.change(kind, "clone_volume", args, call)) as VolumeValue);
  };
  return {
    async observeVolume(ref: VolumeRef, call: Call) {
      requirePool(ref.pool);
      const row = await calls.read<VolumeRow>("observeVolume", READ_VOLUME, [ref.pool, ref.name], call);
      return row.volume === null ? null : observed(row.volume);
    },
    async createVolume(spec: VolumeSpec, call: Call) {
      requirePool(spec.pool);
      requireSize(spec.capacityBytes);
      const { pool, name, format, capacityBytes } = spec;
      const args = [pool, name, format, capacityBytes, EMPTY_BYTES[format], poolBytes];
      return observed((await calls.change("createVolume", "create_volume", args, call)) as VolumeValue);
    },
    async uploadVolume(ref: VolumeRef, source: AsyncIterable<Uint8Array>, sizeBytes: number, call: Call) {
      requirePool(ref.pool);
      const limits = { life, signal: call.signal, timeoutMs: null };
      const content = await withinLimits(limits, (isOver) => consume(source, sizeBytes, isOver));
      const args = [ref.pool, ref.name, sizeBytes, content.sha256, content.qcow2Bytes, poolBytes];
      await calls.change("uploadVolume", "upload_volume", args, call);
    },
    async copyVolume(spec: VolumeSpec, source: VolumeRef, call: Call) {
      return await clone("copyVolume", spec, source, call);
    },
    ...(settings.hypervisor === "kvm"
      ? {
          overlayVolume: (spec: VolumeSpec, base: VolumeRef, call: Call) =>
            clone("overlayVolume", spec, base, call),
        }
      : {}),
    async digestVolume(ref: VolumeRef, sizeBytes: number, call: Call) {
      requirePool(ref.pool);
      const row = await calls.read<DigestRow>("digestVolume", READ_DIGEST, [ref.pool, ref.name], call);
      if (!row.isThere) {
        throw new HypervisorError("not-found", `pool ${ref.pool} has no volume ${ref.name}`);
      }
      return row.sha256 ?? digestOfZeros(sizeBytes);
    },
    async growVolume(ref: VolumeRef, capacityBytes: number, call: Call) {
      requirePool(ref.pool);
      requireSize(capacityBytes);
      await calls.change("growVolume", "grow_volume", [ref.pool, ref.name, capacityBytes], call);
    },
    async deleteVolume(ref: VolumeRef, call: Call) {
      requirePool(ref.pool);
      await calls.change("deleteVolume", "delete_volume", [ref.pool, ref.name], call);
    },
    async listVolumes(pool: string, prefix: string, call: Call) {
      requirePool(pool);
      const row = await calls.read<VolumesRow>("listVolumes", READ_VOLUMES, [pool, prefix], call);
      return row.volumes.map(observed);
    },
  };
}

/** A simulated host has one pool. */
export function requirePool(pool: string): void {
  if (pool !== SIM_POOL) throw new HypervisorError("not-found", `the host has no pool ${pool}`);
}

function requireSize(bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 1) {
    throw new HypervisorError("invalid-spec", `a volume cannot have a capacity of ${bytes} bytes`);
  }
}

const ZEROS = Buffer.alloc(1 << 20);

/** What is in a raw volume that nobody has written to. */
function digestOfZeros(sizeBytes: number): string {
  const hash = createHash("sha256");
  for (let at = 0; at < sizeBytes; at += ZEROS.length) hash.update(ZEROS.subarray(0, sizeBytes - at));
  return hash.digest("hex");
}

interface Content {
  readonly sha256: string;
  /** The virtual size that a qcow2 header tells; null for other content. */
  readonly qcow2Bytes: number | null;
}

async function consume(
  source: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  isOver: () => boolean,
): Promise<Content> {
  const hash = createHash("sha256");
  let head = Buffer.alloc(0);
  let received = 0;
  for await (const chunk of source) {
    received += chunk.byteLength;
    if (isOver() || received > sizeBytes) break;
    hash.update(chunk);
    if (head.length < QCOW2_HEAD_BYTES) head = Buffer.concat([head, chunk]).subarray(0, QCOW2_HEAD_BYTES);
  }
  if (received !== sizeBytes) {
    const amount = received > sizeBytes ? "more" : "less";
    throw new HypervisorError(
      "invalid-spec",
      `the upload gave ${amount} than the ${sizeBytes} bytes that were announced`,
    );
  }
  return { sha256: hash.digest("hex"), qcow2Bytes: qcow2Size(head) };
}

/** A qcow2 header begins with its magic; its virtual size is the 64-bit big-endian number at byte 24. */
const QCOW2_HEAD_BYTES = 32;
const QCOW2_MAGIC = 0x514649fb;
function qcow2Size(head: Buffer): number | null {
  if (head.length < QCOW2_HEAD_BYTES || head.readUInt32BE(0) !== QCOW2_MAGIC) return null;
  return Number(head.readBigUInt64BE(24));
}

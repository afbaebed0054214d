import type { VolumeFormat } from "../hypervisor.ts";
import { unreadable } from "./errors.ts";
import { isVolumeName } from "./volume-names.ts";

/** What we take from a volume's file. */
export interface VolumeFacts {
  readonly name: string;
  readonly format: VolumeFormat;
  /** What a guest sees as the disk's size. */
  readonly capacityBytes: number;
  /** What the file takes in its pool now. */
  readonly allocationBytes: number;
  /** A qcow2 that makes QEMU open another file: none that Drover put there does. */
  readonly namesOtherFiles: boolean;
}

/** How many bytes of a file's beginning are looked at: all of a qcow2 header that matters here. */
export const VOLUME_HEAD_BYTES = 80;

/** Name, size, blocks, bytes of a block, and the file's first bytes in hexadecimal. */
const LINE = /^(\S+) (\d{1,19}) (\d{1,19}) (\d{1,6}) ((?:[0-9a-f]{2}){0,80})$/;

/**
 * Reads the lines that `volume-programs.ts` has the host write, one for each file. Throws HypervisorError (`failed`)
 * for anything else.
 */
export function parseVolumes(text: string): readonly VolumeFacts[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map(parseVolume);
}

function parseVolume(line: string): VolumeFacts {
  const [, name = "", size, blocks, blockBytes, head] = LINE.exec(line) ?? [];
  if (head === undefined || !isVolumeName(name)) {
    throw unreadable("stat", `this line is not one of a volume: ${line.slice(0, 200)}`);
  }
  const image = readQcow2(name, Buffer.from(head, "hex"));
  return {
    name,
    format: image === null ? "raw" : "qcow2",
    capacityBytes: image?.capacityBytes ?? safe(Number(size)),
    allocationBytes: safe(Number(blocks) * Number(blockBytes)),
    namesOtherFiles: image?.namesOtherFiles ?? false,
  };
}

const QCOW2_MAGIC = 0x51_46_49_fb;
const HEADER_V2_BYTES = 72;
const DATA_FILE = 1n << 2n;

/**
 * Reads the beginning of a qcow2 (docs/interop/qcow2.txt of QEMU). It is read here and not by QEMU, which would open
 * whatever other files a guest had written into its disk's beginning. Null for what is no qcow2, or is called raw.
 */
function readQcow2(
  name: string,
  head: Buffer,
): { readonly capacityBytes: number; readonly namesOtherFiles: boolean } | null {
  if (name.endsWith(".raw") || head.length < HEADER_V2_BYTES || head.readUInt32BE(0) !== QCOW2_MAGIC)
    return null;
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) return null;
  const features = version === 3 && head.length >= VOLUME_HEAD_BYTES ? head.readBigUInt64BE(72) : 0n;
  return {
    capacityBytes: safe(Number(head.readBigUInt64BE(24))),
    namesOtherFiles: head.readBigUInt64BE(8) !== 0n || (features & DATA_FILE) !== 0n,
  };
}

/** What no number can hold exactly is cut to the largest that can. */
function safe(bytes: number): number {
  return Math.min(bytes, Number.MAX_SAFE_INTEGER);
}

import { unreadable } from "./errors.ts";
import { GROW_TAG, VOLUME_TAG } from "./lvm-programs.ts";
import { isVolumeName } from "./volume-names.ts";

/** What we take from a logical volume. */
export interface LogicalVolume {
  /** The volume's name, which LVM's own name for it may shorten. */
  readonly name: string;
  /** What a guest may use of it: not what it is only just growing by. */
  readonly capacityBytes: number;
  readonly allocationBytes: number;
}

/** LVM's name, the size, and tags with commas between them, if there are any. */
const LINE = /^\s*\S+ (\d{1,19})(?: (\S*))?\s*$/;

/**
 * Reads what `lvs` reports by lvm-programs.ts: those that are volumes of ours, and have become whole. Throws
 * HypervisorError (`failed`) for what is no report.
 */
export function parseLogicalVolumes(text: string): readonly LogicalVolume[] {
  return text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .flatMap(parseLine);
}

function parseLine(line: string): readonly LogicalVolume[] {
  const [, digits, tagged] = LINE.exec(line) ?? [];
  if (digits === undefined) throw unreadable("lvs", `this line is none of a volume: ${line.slice(0, 200)}`);
  const tags = (tagged ?? "").split(",");
  const name = valueOf(VOLUME_TAG, tags);
  if (name === null || !isVolumeName(name)) return [];
  const allocationBytes = Number(digits);
  const before = valueOf(GROW_TAG, tags);
  const isGrowing = before !== null && /^\d{1,15}$/.test(before);
  return [{ name, capacityBytes: isGrowing ? Number(before) : allocationBytes, allocationBytes }];
}

function valueOf(tag: string, tags: readonly string[]): string | null {
  return tags.find((candidate) => candidate.startsWith(tag))?.slice(tag.length) ?? null;
}

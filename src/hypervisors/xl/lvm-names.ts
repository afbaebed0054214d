import { createHash } from "node:crypto";
import { HypervisorError } from "../hypervisor.ts";
import { checkedVolumeName } from "./volume-names.ts";

/** What Drover takes as a volume group's name: LVM's own rules, less what would need quoting. */
const GROUP_NAME = /^[A-Za-z0-9_][A-Za-z0-9._+-]{0,62}$/;
/** LVM keeps names with these for itself, and most others of them hold an underscore. */
const RESERVED = /^(?:snapshot|pvmove)|_/;
/**
 * The device mapper takes 127 characters for group and volume together, each hyphen of theirs twice, and LVM needs
 * some of them.
 */
const MAX_DEVICE_NAME_LENGTH = 120;

/** True for a name that a volume group can have. */
export function isGroupName(name: string): boolean {
  return GROUP_NAME.test(name);
}

/**
 * What LVM calls a volume: by the volume's own name where LVM takes it, else by its digest. Which volume it is, its tag
 * says.
 * @throws HypervisorError `invalid-spec` for a name that no volume can have
 */
export function logicalVolumeName(group: string, name: string): string {
  const checked = checkedVolumeName(name);
  const length = doubled(group) + 1 + doubled(checked);
  if (length <= MAX_DEVICE_NAME_LENGTH && !RESERVED.test(checked)) return checked;
  return `drover.${createHash("sha256").update(checked).digest("hex").slice(0, 32)}`;
}

/**
 * The device of a volume in a volume group.
 * @throws HypervisorError `invalid-spec` for names that cannot be ones
 */
export function logicalVolumePath(group: string, name: string): string {
  if (!isGroupName(group)) {
    throw new HypervisorError("invalid-spec", `'${group.slice(0, 80)}' cannot name a volume group`);
  }
  return `/dev/${group}/${logicalVolumeName(group, name)}`;
}

function doubled(name: string): number {
  return name.length + name.split("-").length - 1;
}

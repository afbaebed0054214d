import type { ProgramArguments } from "./host.ts";
import { logicalVolumeName } from "./lvm-names.ts";

/**
 * What runs on the host for volumes in a volume group: texts for its `sh` that never change; names and sizes come as
 * arguments. A tag of LVM's says whose a logical volume is, and how far it has come; one without is none of ours, and is
 * neither shown nor touched.
 *
 * What the group's disks held before is never a guest's to read: a volume is filled with zeros before it is one, and so
 * is what it grows by. Where that was broken off, the tag is there still, and the next call begins again.
 */

/** Exit statuses of these programs, beyond what programs use by themselves. */
export const NO_GROUP = 84;
export const NO_LOGICAL_VOLUME = 85;
export const FOREIGN_VOLUME = 86;
export const CUT_OFF = 87;

/** `drover=NAME`: the volume NAME. */
export const VOLUME_TAG = "drover=";
/** `drover-part=NAME`: it is being made. */
const PART_TAG = "drover-part=";
/** `drover-grow=BYTES`: it had this size, and what lies behind is being filled with zeros. */
export const GROW_TAG = "drover-grow=";

/** The report's columns: see parse-logical-volumes.ts. */
const REPORT = "lvs --noheadings --nosuffix --units b --separator ' ' -o lv_name,lv_size,lv_tags";

const BEGIN = `
set -eu
export LC_ALL=C
group=$1
command -v lvs >/dev/null && [ -n "$(vgs --noheadings -o vg_name -S "vg_name=\\"$group\\"")" ] || exit ${NO_GROUP}
`;

const OBSERVE = `${BEGIN}
${REPORT} -S "lv_name=\\"$2\\"" -- "$group"
`;

const LIST = `${BEGIN}
${REPORT} -- "$group"
`;

/** What there is of a volume: `tags` as in `,a,b,`, or empty where there is no such logical volume. */
const LOOK = `${BEGIN}
lv=$2 name=$3
device=/dev/$group/$lv
row=$(lvs --noheadings --separator ' ' -o lv_name,lv_tags -S "lv_name=\\"$lv\\"" -- "$group")
tags=''
[ -z "$row" ] || tags=",\${row##* },"
must_be_there() {
  case $tags in *,"${VOLUME_TAG}$name",*) ;; *) exit ${NO_LOGICAL_VOLUME} ;; esac
}
`;

const CREATE = `${LOOK}
bytes=$4
case $tags in
  '') ;;
  *,"${VOLUME_TAG}$name",*) exit 0 ;;
  *,"${PART_TAG}$name",*) lvremove -q -y -- "$group/$lv" ;;
  *) exit ${FOREIGN_VOLUME} ;;
esac
lvcreate -q -y -W n -Z n --addtag "${PART_TAG}$name" -n "$lv" -L "\${bytes}b" -- "$group"
blkdiscard --force --zeroout -- "$device"
lvchange -q --deltag "${PART_TAG}$name" --addtag "${VOLUME_TAG}$name" -- "$group/$lv"
`;

/** What was announced is counted here too: a broken connection looks like an end. */
const UPLOAD = `${LOOK}
bytes=$4
must_be_there
report=$(dd of="$device" bs=1048576 iflag=fullblock conv=notrunc,fsync 2>&1) || {
  printf '%s\\n' "$report" >&2
  exit 1
}
printf '%s\\n' "$report" | grep -qE "^$bytes bytes?[ ,]" || exit ${CUT_OFF}
`;

/** A part, behind what was written before. */
const UPLOAD_PART = `${LOOK}
bytes=$4
must_be_there
report=$(dd of="$device" bs=1048576 iflag=fullblock oflag=seek_bytes seek="$5" conv=notrunc,fsync 2>&1) || {
  printf '%s\\n' "$report" >&2
  exit 1
}
printf '%s\\n' "$report" | grep -qE "^$bytes bytes?[ ,]" || exit ${CUT_OFF}
`;

const DIGEST = `${LOOK}
must_be_there
head -c "$4" -- "$device" | sha256sum
`;

/** Anew, whatever there is of it: it may be half of a copy that broke off. */
const COPY = `${LOOK}
bytes=$4 source=/dev/$group/$5
case $tags in
  '') ;;
  *,"${VOLUME_TAG}$name",* | *,"${PART_TAG}$name",*) lvremove -q -y -- "$group/$lv" ;;
  *) exit ${FOREIGN_VOLUME} ;;
esac
[ -e "$source" ] || exit ${NO_LOGICAL_VOLUME}
size=$(blockdev --getsize64 "$source")
lvcreate -q -y -W n -Z n --addtag "${PART_TAG}$name" -n "$lv" -L "\${bytes}b" -- "$group"
dd if="$source" of="$device" bs=1048576 conv=notrunc,fsync 2>/dev/null
[ "$(blockdev --getsize64 "$device")" -le "$size" ] || blkdiscard --force --zeroout --offset "$size" -- "$device"
lvchange -q --deltag "${PART_TAG}$name" --addtag "${VOLUME_TAG}$name" -- "$group/$lv"
`;

const GROW = `${LOOK}
bytes=$4
must_be_there
from=\${tags##*,${GROW_TAG}}
if [ "$from" = "$tags" ]; then
  from=$(blockdev --getsize64 "$device")
  [ "$from" -lt "$bytes" ] || exit 0
  lvchange -q --addtag "${GROW_TAG}$from" -- "$group/$lv"
else
  from=\${from%%,*}
fi
[ "$(blockdev --getsize64 "$device")" -ge "$bytes" ] || lvextend -q -L "\${bytes}b" -- "$group/$lv"
[ "$(blockdev --getsize64 "$device")" -le "$from" ] || blkdiscard --force --zeroout --offset "$from" -- "$device"
lvchange -q --deltag "${GROW_TAG}$from" -- "$group/$lv"
`;

const DELETE = `${LOOK}
case $tags in
  '') ;;
  *,"${VOLUME_TAG}$name",* | *,"${PART_TAG}$name",*) lvremove -q -y -- "$group/$lv" ;;
  *) exit ${FOREIGN_VOLUME} ;;
esac
`;

function program(text: string, ...args: readonly string[]): ProgramArguments {
  return ["sh", "-c", text, "drover", ...args];
}

export function observeLogicalVolume(group: string, name: string): ProgramArguments {
  return program(OBSERVE, group, logicalVolumeName(group, name));
}

export function listLogicalVolumes(group: string): ProgramArguments {
  return program(LIST, group);
}

export function createLogicalVolume(group: string, name: string, capacityBytes: number): ProgramArguments {
  return program(CREATE, group, logicalVolumeName(group, name), name, String(capacityBytes));
}

/** Takes the content from its stdin. */
export function uploadLogicalVolume(group: string, name: string, sizeBytes: number): ProgramArguments {
  return program(UPLOAD, group, logicalVolumeName(group, name), name, String(sizeBytes));
}

/** Takes the part from its stdin. */
export function uploadLogicalVolumePart(
  group: string,
  name: string,
  { offsetBytes, sizeBytes }: { readonly offsetBytes: number; readonly sizeBytes: number },
): ProgramArguments {
  const lv = logicalVolumeName(group, name);
  return program(UPLOAD_PART, group, lv, name, String(sizeBytes), String(offsetBytes));
}

export function digestLogicalVolume(group: string, name: string, sizeBytes: number): ProgramArguments {
  return program(DIGEST, group, logicalVolumeName(group, name), name, String(sizeBytes));
}

/** `capacityBytes` is at least the source's. */
export function copyLogicalVolume(
  group: string,
  name: string,
  source: string,
  capacityBytes: number,
): ProgramArguments {
  const lv = logicalVolumeName(group, name);
  return program(COPY, group, lv, name, String(capacityBytes), logicalVolumeName(group, source));
}

/** Grows it to this capacity; one that is larger stays as it is. */
export function growLogicalVolume(group: string, name: string, capacityBytes: number): ProgramArguments {
  return program(GROW, group, logicalVolumeName(group, name), name, String(capacityBytes));
}

export function deleteLogicalVolume(group: string, name: string): ProgramArguments {
  return program(DELETE, group, logicalVolumeName(group, name), name);
}

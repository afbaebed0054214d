import type { VolumeFormat } from "../hypervisor.ts";
import type { ProgramArguments } from "./host.ts";
import { VOLUME_HEAD_BYTES } from "./parse-volumes.ts";
import { checkedVolumeName } from "./volume-names.ts";

/**
 * What runs on the host for volumes: texts for its `sh` that never change; names and sizes come as arguments. A new
 * content is put together in a hidden file beside the volume and takes its place whole, so that what is broken off
 * leaves the volume as it was.
 */

/** Exit statuses of these programs, beyond what programs use by themselves. */
export const NO_DIRECTORY = 81;
export const NO_VOLUME = 82;
export const WRONG_LENGTH = 83;

/** Tells of each file named: see parse-volumes.ts. What is no plain file, or goes away meanwhile, is left out. */
const DESCRIBE = `
export LC_ALL=C
describe() {
  case $1 in *[!A-Za-z0-9._+-]*) return 0 ;; esac
  [ -f "$1" ] && [ ! -L "$1" ] || return 0
  facts=$(stat -c '%s %b %B' -- "$1" 2>/dev/null) || return 0
  head=$(head -c ${VOLUME_HEAD_BYTES} -- "$1" | od -A n -v -t x1 | tr -d ' \\n')
  printf '%s %s %s\\n' "$1" "$facts" "$head"
}
cd -- "$1" || exit ${NO_DIRECTORY}
`;

const OBSERVE = `${DESCRIBE}
describe "$2"
`;

const LIST = `${DESCRIBE}
for name in "$2"*; do describe "$name"; done
`;

/** A part that was left over is no reason to fail, and none is left when this ends. */
const BEGIN_PART = `
part=.$name.part
rm -f -- "$part"
trap 'rm -f -- "$part"' EXIT
trap 'exit 143' HUP INT TERM
`;

const CREATE = `
set -eu
umask 077
format=$2 name=$3 bytes=$4
cd -- "$1" || exit ${NO_DIRECTORY}
[ ! -e "$name" ] || exit 0
${BEGIN_PART}
case $format in
  raw) truncate -s "$bytes" -- "$part" ;;
  qcow2) qemu-img create -q -f qcow2 -o compat=1.1 -- "$part" "$bytes" ;;
esac
mv -T -- "$part" "$name"
`;

/** Stretches of zeros take no room. What was announced is counted here too: a broken connection looks like an end. */
const UPLOAD = `
set -eu
umask 077
name=$2 bytes=$3 least=$4
cd -- "$1" || exit ${NO_DIRECTORY}
[ -f "$name" ] || exit ${NO_VOLUME}
${BEGIN_PART}
dd of="$part" bs=1048576 iflag=fullblock conv=sparse,fsync status=none
[ "$(stat -c %s -- "$part")" = "$bytes" ] || exit ${WRONG_LENGTH}
truncate -s ">$least" -- "$part"
mv -T -- "$part" "$name"
`;

/** In place: what was written before is kept, and what lies behind the part's beginning is not. */
const UPLOAD_PART = `
set -eu
name=$2 offset=$3 bytes=$4 least=$5
cd -- "$1" || exit ${NO_DIRECTORY}
[ -f "$name" ] || exit ${NO_VOLUME}
[ "$(stat -c %s -- "$name")" -ge "$offset" ] || exit ${WRONG_LENGTH}
truncate -s "$offset" -- "$name"
dd of="$name" bs=1048576 iflag=fullblock oflag=seek_bytes seek="$offset" conv=notrunc,sparse,fsync status=none
[ "$(stat -c %s -- "$name")" = "$((offset + bytes))" ] || exit ${WRONG_LENGTH}
truncate -s ">$least" -- "$name"
`;

/** File systems that share blocks (btrfs, xfs) copy nothing. A copy takes its name whole. */
const COPY = `
set -eu
umask 077
name=$2 source=$3 format=$4 grow=$5
cd -- "$1" || exit ${NO_DIRECTORY}
${BEGIN_PART}
cp --reflink=auto --sparse=always -- "$source" "$part"
case $format in
  raw) truncate -s ">$grow" -- "$part" ;;
  qcow2) [ "$grow" = 0 ] || qemu-img resize -q -f qcow2 -- "$part" "$grow" ;;
esac
mv -T -- "$part" "$name"
`;

const DIGEST = `
set -eu
name=$2 bytes=$3
cd -- "$1" || exit ${NO_DIRECTORY}
[ -f "$name" ] || exit ${NO_VOLUME}
[ "$(stat -c %s -- "$name")" -ge "$bytes" ] || exit ${WRONG_LENGTH}
head -c "$bytes" -- "$name" | sha256sum
`;

function program(text: string, ...args: readonly string[]): ProgramArguments {
  return ["sh", "-c", text, "drover", ...args];
}

export function observeProgram(directory: string, name: string): ProgramArguments {
  return program(OBSERVE, directory, checkedVolumeName(name));
}

export function listProgram(directory: string, prefix: string): ProgramArguments {
  return program(LIST, directory, prefix);
}

export function createProgram(
  directory: string,
  name: string,
  format: VolumeFormat,
  capacityBytes: number,
): ProgramArguments {
  return program(CREATE, directory, format, checkedVolumeName(name), String(capacityBytes));
}

/** Takes the content from its stdin. @param leastBytes how long the file is at least, with zeros at its end */
export function uploadProgram(
  directory: string,
  name: string,
  sizeBytes: number,
  leastBytes: number,
): ProgramArguments {
  return program(UPLOAD, directory, checkedVolumeName(name), String(sizeBytes), String(leastBytes));
}

/** Takes a part of the content from its stdin. @param leastBytes how long the file is at least afterwards */
export function uploadPartProgram(
  directory: string,
  name: string,
  { offsetBytes, sizeBytes }: { readonly offsetBytes: number; readonly sizeBytes: number },
  leastBytes: number,
): ProgramArguments {
  const sizes = [offsetBytes, sizeBytes, leastBytes].map(String);
  return program(UPLOAD_PART, directory, checkedVolumeName(name), ...sizes);
}

/** @param growBytes the capacity that it is grown to; 0: it keeps its source's */
export function copyProgram(
  directory: string,
  name: string,
  source: string,
  format: VolumeFormat,
  growBytes: number,
): ProgramArguments {
  const names = [checkedVolumeName(name), checkedVolumeName(source)];
  return program(COPY, directory, ...names, format, String(growBytes));
}

/** Writes the SHA-256 of a file's first bytes. */
export function digestProgram(directory: string, name: string, sizeBytes: number): ProgramArguments {
  return program(DIGEST, directory, checkedVolumeName(name), String(sizeBytes));
}

/** Grows a file to this capacity; one that is larger stays as it is, and so does one that is not there. */
export function growProgram(path: string, format: VolumeFormat, capacityBytes: number): ProgramArguments {
  return format === "raw"
    ? ["truncate", "--no-create", `--size=>${capacityBytes}`, "--", path]
    : ["qemu-img", "resize", "-q", "-f", "qcow2", "--", path, String(capacityBytes)];
}

import { HypervisorError } from "../hypervisor.ts";

/** A file's name that is neither hidden nor an option, and that no program takes apart. */
const VOLUME_NAME = /^[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}$/;

/** True for a name that a volume can have. Other files in a pool's directory are none of ours. */
export function isVolumeName(name: string): boolean {
  return VOLUME_NAME.test(name);
}

/** @throws HypervisorError `invalid-spec` for a name that no volume can have */
export function checkedVolumeName(name: string): string {
  if (isVolumeName(name)) return name;
  throw new HypervisorError(
    "invalid-spec",
    `'${name.slice(0, 80)}' cannot name a volume: use letters, digits and . _ + -, beginning with a letter or digit`,
  );
}

/** A volume's path in its pool's directory. */
export function volumePath(directory: string, name: string): string {
  return `${directory}/${checkedVolumeName(name)}`;
}

/** Where a volume's content is put together before it takes the volume's place; hidden, so that it is no volume. */
export function volumePartPath(directory: string, name: string): string {
  return `${directory}/.${checkedVolumeName(name)}.part`;
}

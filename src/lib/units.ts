export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

/** Bytes to whole MiB, rounded up: what something needs. */
export function mibRoundedUp(bytes: number): number {
  return Math.ceil(bytes / MIB);
}

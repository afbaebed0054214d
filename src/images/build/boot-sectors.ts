/** The first sectors of a disk that a PC BIOS boots: GRUB's first stage with the partition table, GRUB's core behind it. */

const SECTOR_BYTES = 512;
/** Where the partition begins; before it is room for GRUB's core. */
const FIRST_SECTOR = 2048;
export const PARTITION_OFFSET_BYTES = FIRST_SECTOR * SECTOR_BYTES;

/** A boot record's code ends where the disk signature and the partition table begin. */
const BOOT_CODE_BYTES = 440;
const SIGNATURE_OFFSET = 440;
const PARTITION_TABLE_OFFSET = 446;
const LINUX_PARTITION = 0x83;
const ACTIVE = 0x80;
/** Cylinder, head and sector beyond what they can express: the sector counts behind them hold. */
const BEYOND = [0xfe, 0xff, 0xff];

export interface BootSectors {
  /** GRUB's boot.img. It loads what stands in the second sector. */
  readonly bootCode: Uint8Array;
  /** What grub-mkimage made. */
  readonly core: Uint8Array;
  readonly diskBytes: number;
  /** Tells disks apart. */
  readonly signature: number;
}

/**
 * Everything before the partition, which takes the rest of the disk.
 * @throws {RangeError} when GRUB's core does not fit there.
 */
export function bootSectors({ bootCode, core, diskBytes, signature }: BootSectors): Uint8Array {
  if (core.length > PARTITION_OFFSET_BYTES - SECTOR_BYTES)
    throw new RangeError(`GRUB's core has ${core.length} bytes and does not fit before the first partition`);
  const sectors = new Uint8Array(SECTOR_BYTES + core.length);
  const view = new DataView(sectors.buffer);
  sectors.set(bootCode.subarray(0, BOOT_CODE_BYTES));
  view.setUint32(SIGNATURE_OFFSET, signature, true);
  sectors.set([ACTIVE, ...BEYOND, LINUX_PARTITION, ...BEYOND], PARTITION_TABLE_OFFSET);
  view.setUint32(PARTITION_TABLE_OFFSET + 8, FIRST_SECTOR, true);
  view.setUint32(PARTITION_TABLE_OFFSET + 12, diskBytes / SECTOR_BYTES - FIRST_SECTOR, true);
  sectors.set([0x55, 0xaa], SECTOR_BYTES - 2);
  sectors.set(core, SECTOR_BYTES);
  return sectors;
}

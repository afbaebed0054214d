// A disk image which a PC BIOS boots: master boot record, GRUB in the gap behind it, one ext4 partition.
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { run } from "../run-program.mjs";

const SECTOR_BYTES = 512;
const FIRST_SECTOR = 2048;
const DISK_MIB = 64;
const GRUB_DIR = "/usr/lib/grub/i386-pc";
const GRUB_MODULES = ["biosdisk", "part_msdos", "ext2", "normal", "linux", "configfile", "boot"];
// A boot record's code ends where the disk signature and the partition table begin.
const BOOT_CODE_BYTES = 440;
const PARTITION_TABLE_OFFSET = 446;
const LINUX_PARTITION = 0x83;

/**
 * Builds the disk.
 * @param {{ kernel: string, initrd: string, kernelArgs: string, workDir: string, disk: string }} options paths; disk is
 *   what is made (qcow2)
 */
export async function buildBootDisk({ kernel, initrd, kernelArgs, workDir, disk }) {
  const tree = join(workDir, "disk-root");
  mkdirSync(join(tree, "boot/grub"), { recursive: true });
  copyFileSync(kernel, join(tree, "vmlinuz"));
  copyFileSync(initrd, join(tree, "initrd"));
  const menu = `set timeout=0\nlinux /vmlinuz ${kernelArgs}\ninitrd /initrd\nboot\n`;
  writeFileSync(join(tree, "boot/grub/grub.cfg"), menu);

  const raw = join(workDir, "disk.raw");
  const core = join(workDir, "core.img");
  writeFileSync(raw, "");
  truncateSync(raw, DISK_MIB * 2 ** 20);
  const offset = `offset=${FIRST_SECTOR * SECTOR_BYTES}`;
  const fileSystem = [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^has_journal",
    "-L",
    "drover-guest",
    "-d",
    tree,
    "-E",
    offset,
  ];
  await run("/sbin/mke2fs", [...fileSystem, raw, `${DISK_MIB - 1}M`]);
  const grub = ["-O", "i386-pc", "-d", GRUB_DIR, "-p", "(hd0,msdos1)/boot/grub", "-o", core];
  await run("grub-mkimage", [...grub, ...GRUB_MODULES]);
  writeBootSectors(raw, readFileSync(join(GRUB_DIR, "boot.img")), readFileSync(core));
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, disk]);
  for (const path of [tree, raw, core]) rmSync(path, { recursive: true });
}

/**
 * @param {string} raw
 * @param {Buffer} bootCode GRUB's first stage; it loads what stands in the sectors behind it
 * @param {Buffer} core
 */
function writeBootSectors(raw, bootCode, core) {
  if (core.length > (FIRST_SECTOR - 1) * SECTOR_BYTES)
    throw new Error("GRUB does not fit before the first partition");
  const file = openSync(raw, "r+");
  try {
    const sectors = (DISK_MIB * 2 ** 20) / SECTOR_BYTES - FIRST_SECTOR;
    writeSync(file, masterBootRecord(bootCode, { first: FIRST_SECTOR, count: sectors }), 0, SECTOR_BYTES, 0);
    writeSync(file, core, 0, core.length, SECTOR_BYTES);
  } finally {
    closeSync(file);
  }
}

/**
 * @param {Uint8Array} bootCode
 * @param {{ first: number, count: number }} partition in sectors
 * @returns {Buffer} one sector, with one active Linux partition
 */
export function masterBootRecord(bootCode, partition) {
  const sector = Buffer.alloc(SECTOR_BYTES);
  sector.set(bootCode.subarray(0, BOOT_CODE_BYTES));
  // Cylinder, head and sector numbers beyond what they can express, so that the sector counts behind them hold.
  const beyond = [0xfe, 0xff, 0xff];
  sector.set([0x80, ...beyond, LINUX_PARTITION, ...beyond], PARTITION_TABLE_OFFSET);
  sector.writeUInt32LE(partition.first, PARTITION_TABLE_OFFSET + 8);
  sector.writeUInt32LE(partition.count, PARTITION_TABLE_OFFSET + 12);
  sector.set([0x55, 0xaa], SECTOR_BYTES - 2);
  return sector;
}

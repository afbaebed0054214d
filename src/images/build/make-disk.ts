import { open, readFile, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../../lib/errors.ts";
import { GIB, MIB } from "../../lib/units.ts";
import { bootSectors, PARTITION_OFFSET_BYTES } from "./boot-sectors.ts";
import { type DebianTree, GRUB_BOOT_CODE, GRUB_CORE } from "./bootstrap.ts";
import type { BuildRun } from "./build-run.ts";
import { MKE2FS_CONF } from "./guest-config.ts";

/** Beside the files: the journal, tables, and room to start in. */
const OVERHEAD_BYTES = 512 * MIB;
const TABLES_FACTOR = 1.1;

/** The size of a disk for files of this many bytes: whole GiB. */
export function diskSizeGib(usedBytes: number): number {
  return Math.ceil((usedBytes * TABLES_FACTOR + OVERHEAD_BYTES) / GIB);
}

/**
 * Makes a disk of a tree, without a loop device or a mount, and returns its path: a qcow2 that a PC BIOS boots.
 * @param sizeGib null: as large as the tree needs.
 * @throws {DroverError} when the size asked for is too small.
 */
export async function makeDisk(run: BuildRun, tree: DebianTree, sizeGib: number | null): Promise<string> {
  const usedBytes = await sizeOfTree(run, tree.root);
  const neededGib = diskSizeGib(usedBytes);
  const size = sizeGib ?? neededGib;
  if (size < neededGib) {
    throw new DroverError(
      "image_build_failed",
      `The packages need a disk of ${neededGib} GiB at least: ask for a larger sizeGib, or leave it out.`,
    );
  }
  const raw = path.join(run.directory, "disk.raw");
  await writeFile(raw, "", { flag: "wx", mode: 0o600 });
  await truncate(raw, size * GIB);
  await makeFileSystem(run, tree, raw, size * GIB);
  await writeBootSectors(tree, raw, size * GIB);
  const disk = path.join(run.directory, "disk.qcow2");
  // Compressed: it is sent to every host that uses it, and each VM writes to clusters of its own. With zlib: the QEMU
  // that serves disks on Xen hosts (Debian's qemu-system-xen) is built without zstd.
  const format = ["-c", "-O", "qcow2", "-o", "compression_type=zlib"];
  await run.program("qemu-img", ["convert", "-f", "raw", ...format, `file:${raw}`, `file:${disk}`]);
  return disk;
}

async function sizeOfTree(run: BuildRun, root: string): Promise<number> {
  const lines = await run.program("du", ["--summarize", "--one-file-system", "--block-size=1", "--", root]);
  const bytes = /^(\d+)\t/.exec(lines.at(-1) ?? "")?.[1];
  if (bytes === undefined) throw new Error(`du gave no size: ${lines.at(-1) ?? "nothing"}`);
  return Number(bytes);
}

async function makeFileSystem(
  run: BuildRun,
  { root, rootUuid }: DebianTree,
  raw: string,
  diskBytes: number,
): Promise<void> {
  const config = path.join(run.directory, "mke2fs.conf");
  await writeFile(config, MKE2FS_CONF, { mode: 0o644 });
  // The tables are written now: guests need not do it in the background.
  const extended = `offset=${PARTITION_OFFSET_BYTES},lazy_itable_init=0,lazy_journal_init=0`;
  const options = ["-q", "-t", "ext4", "-L", "root", "-U", rootUuid, "-m", "1", "-E", extended, "-d", root];
  const kib = (diskBytes - PARTITION_OFFSET_BYTES) / 1024;
  await run.program("mke2fs", [...options, raw, `${kib}k`], { env: { MKE2FS_CONFIG: config } });
}

async function writeBootSectors(
  { root, rootUuid }: DebianTree,
  raw: string,
  diskBytes: number,
): Promise<void> {
  const sectors = bootSectors({
    bootCode: await readFile(path.join(root, GRUB_BOOT_CODE)),
    core: await readFile(path.join(root, GRUB_CORE)),
    diskBytes,
    signature: Number.parseInt(rootUuid.slice(0, 8), 16),
  });
  const file = await open(raw, "r+");
  try {
    await file.write(sectors, 0, sectors.length, 0);
  } finally {
    await file.close();
  }
}

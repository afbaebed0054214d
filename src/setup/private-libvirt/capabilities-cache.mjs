// What libvirt found out about QEMU, kept from run to run: probing takes a second or more. Safe, for libvirt itself
// compares each file with the QEMU binary, its own version, the kernel and the CPU, and probes anew where one differs.
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { cacheDir } from "../cache-dir.mjs";

const SUB_DIR = "qemu/capabilities";

/** @param {string} libvirtCacheDir what the inside sees as /var/cache/libvirt */
export function restoreCapabilities(libvirtCacheDir) {
  copyNew(sharedDir(), join(libvirtCacheDir, SUB_DIR));
}

/**
 * @param {string} libvirtCacheDir
 * @returns {boolean} false when libvirt has found out nothing yet
 */
export function saveCapabilities(libvirtCacheDir) {
  return copyNew(join(libvirtCacheDir, SUB_DIR), sharedDir()) > 0;
}

function sharedDir() {
  return join(cacheDir(), "libvirt-capabilities");
}

/**
 * @param {string} from
 * @param {string} to
 * @returns {number} how many files there are
 */
function copyNew(from, to) {
  if (!existsSync(from)) return 0;
  mkdirSync(to, { recursive: true });
  const names = readdirSync(from).filter((name) => name.endsWith(".xml"));
  for (const name of names) {
    const part = join(to, `${name}.${process.pid}.part`);
    copyFileSync(join(from, name), part);
    renameSync(part, join(to, name));
  }
  return names.length;
}

// Builds the Xen hosts of the tests: a Debian dom0 under Xen on a disk image, and the state it is in after its boot.
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheDir as defaultCacheDir } from "./cache-dir.mjs";
import { withFileLock } from "./file-lock.mjs";
import { runAsRoot } from "./privileges.mjs";
import { run } from "./run-program.mjs";
import { buildXenHostFiles } from "./xen-host/build.mjs";
import { DEFAULT_XEN_VERSION, XEN_FLAVOURS } from "./xen-host/flavours.mjs";
import { warmUp } from "./xen-host/warm-up.mjs";

const DIR_PREFIX = "xen-host-";
const PART_SUFFIX = ".part";
const COMMAND = fileURLToPath(new URL("xen-host/command.mjs", import.meta.url));
const UNUSED_AFTER_MS = 3 * 24 * 60 * 60 * 1000;

/**
 * @typedef {object} XenHostFiles paths
 * @property {string} xen the hypervisor, unpacked
 * @property {string} kernel dom0's kernel, unpacked (ELF)
 * @property {string} initrd of dom0
 * @property {string} disk qcow2, dom0's root file system as built; a cold boot starts from it
 * @property {string} warmDisk qcow2 on top of it: as it was when the state was saved
 * @property {string} warmMemory the memory of the saved machine
 * @property {string} warmState everything else of it
 * @property {string} privateKeyFile lets root in
 * @property {string} knownHostsFile the host key, under the name `xen-rig`
 */

/**
 * Builds a Xen host, or finds it built. Building takes some minutes, once. Needs root and XEN_HOST_PACKAGES.
 * @param {{ version?: import("./xen-host/flavours.mjs").XenVersion, cacheDir?: string, log?: (line: string) => void }} [options]
 * @returns {Promise<XenHostFiles>}
 */
export async function buildXenHost({
  version = DEFAULT_XEN_VERSION,
  cacheDir = defaultCacheDir(),
  log = () => undefined,
} = {}) {
  if (process.arch !== "x64") throw new Error(`Xen hosts run on x86-64 only, not on ${process.arch}`);
  mkdirSync(cacheDir, { recursive: true });
  const dir = join(cacheDir, `${DIR_PREFIX}${version}-${await recipeDigest(version)}`);
  if (existsSync(dir)) {
    markUsed(dir);
    return filesIn(dir);
  }
  if (process.getuid?.() === 0) {
    await withFileLock(`${dir}.lock`, () => build(version, dir, log));
  } else {
    await runAsRoot(process.execPath, [COMMAND, version, cacheDir]);
  }
  sweep(cacheDir);
  return filesIn(dir);
}

/**
 * @param {import("./xen-host/flavours.mjs").XenVersion} version
 * @param {string} dir
 * @param {(line: string) => void} log
 */
async function build(version, dir, log) {
  if (existsSync(dir)) return; // by whoever held the lock before
  log(`building a Xen ${version} host from Debian packages`);
  const part = `${dir}${PART_SUFFIX}`;
  rmSync(part, { recursive: true, force: true });
  const workDir = join(part, "work");
  mkdirSync(workDir, { recursive: true });
  try {
    const files = filesIn(part);
    await buildXenHostFiles({ version, files, workDir });
    log("booting it once, to save it as it stands then");
    await warmUp(files, workDir);
    rmSync(workDir, { recursive: true });
    renameSync(part, dir);
  } catch (error) {
    throw new Error(`the Xen ${version} host could not be built: ${consoleEnd(workDir)}`, { cause: error });
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
}

/** @param {string} workDir */
function consoleEnd(workDir) {
  const file = join(workDir, "console.log");
  return existsSync(file) ? readFileSync(file, "latin1").slice(-2000) : "it did not boot";
}

/**
 * @param {string} dir
 * @returns {XenHostFiles}
 */
function filesIn(dir) {
  return {
    xen: join(dir, "xen"),
    kernel: join(dir, "vmlinux"),
    initrd: join(dir, "initrd"),
    disk: join(dir, "disk.qcow2"),
    warmDisk: join(dir, "warm.qcow2"),
    warmMemory: join(dir, "warm.memory"),
    warmState: join(dir, "warm.state"),
    privateKeyFile: join(dir, "id_ed25519"),
    knownHostsFile: join(dir, "known_hosts"),
  };
}

/** @param {string} dir */
function markUsed(dir) {
  try {
    utimesSync(dir, new Date(), new Date());
  } catch (error) {
    // Somebody else's cache, which may be read: its owner sweeps it.
    if (!(error instanceof Error && "code" in error && error.code === "EPERM")) throw error;
  }
}

/**
 * Removes hosts that nobody has used for days, and halves of them: machines that run keep their files open.
 * @param {string} cacheDir
 */
function sweep(cacheDir) {
  for (const name of readdirSync(cacheDir)) {
    if (!name.startsWith(DIR_PREFIX)) continue;
    const path = join(cacheDir, name);
    const used = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - used > UNUSED_AFTER_MS) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * The recipe is the text of the modules that make the host, the flavour, and the QEMU whose saved state only the same
 * QEMU is sure to read.
 * @param {import("./xen-host/flavours.mjs").XenVersion} version
 */
async function recipeDigest(version) {
  const own = fileURLToPath(import.meta.url);
  const dir = own.replace(/\.mjs$/, "");
  const files = [own, ...readdirSync(dir).map((name) => join(dir, name))];
  const qemu = (await run("qemu-system-x86_64", ["--version"])).split("\n")[0];
  const recipe = [...files.map((file) => readFileSync(file, "utf8")), version, XEN_FLAVOURS[version], qemu];
  return createHash("sha256").update(JSON.stringify(recipe)).digest("hex").slice(0, 12);
}

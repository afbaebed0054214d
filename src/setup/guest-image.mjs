// Builds the small Linux which quickstart and the tests boot: a Debian kernel and a busybox userspace which says on its
// serial console what it does.
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { cacheDir as defaultCacheDir } from "./cache-dir.mjs";
import { refreshPackageLists } from "./debian-packages.mjs";
import { buildBootDisk } from "./guest-image/boot-disk.mjs";
import { packCpio } from "./guest-image/cpio.mjs";
import { collectModules } from "./guest-image/kernel-modules.mjs";
import { findGuestPackages, unpackPackages } from "./guest-image/kernel-packages.mjs";
import { CDROM_MODULES, GUEST_MODULES, rootFiles } from "./guest-image/root-files.mjs";
import { run } from "./run-program.mjs";

/**
 * What the guest needs on its kernel command line when it is booted from kernel and initrd. The clock settings are for
 * QEMU without acceleration, where the kernel's checks of timers and of the TSC take seconds and may fail.
 */
export const GUEST_KERNEL_ARGS =
  "console=ttyS0 console=hvc0 quiet mitigations=off tsc=unstable no_timer_check net.ifnames=0";

const DIR_PREFIX = "guest-";
const PART_SUFFIX = ".part";
const ABANDONED_AFTER_MS = 24 * 60 * 60 * 1000;

/**
 * @typedef {import("./guest-image/kernel-packages.mjs").PackageVersion} PackageVersion
 * @typedef {object} GuestImage
 * @property {string} kernel path of a bzImage
 * @property {string} initrd path of a gzipped cpio archive
 * @property {string} disk path of a qcow2 image which boots by BIOS
 */

/**
 * Builds the image, or finds it built. On the serial console the guest prints `DROVER-GUEST-UP boot=<boot id>`, then
 * `DROVER-GUEST-IP eth0 <address>` for each lease it gets, and `DROVER-GUEST-DOWN` when it is asked to stop or reboot. After
 * Enter there is a shell, on the serial console and on the screen.
 * From a seed for cloud-init it prints `DROVER-SEED <instance id> <host name>`, and the digest of each file.
 * With drover.agent=answering or =silent on its command line it has something like QEMU's agent.
 * Needs the packages GUEST_IMAGE_PACKAGES.
 * @param {{ cacheDir?: string, log?: (line: string) => void }} [options]
 * @returns {Promise<GuestImage>}
 */
export async function buildGuestImage({ cacheDir = defaultCacheDir(), log = () => undefined } = {}) {
  if (process.arch !== "x64") {
    throw new Error(
      `the small guest can be built on x86-64 only, not on ${process.arch}: use an image of your own`,
    );
  }
  mkdirSync(cacheDir, { recursive: true });
  removeAbandoned(cacheDir);
  const recipe = recipeDigest();
  const built = guestOf(
    join(cacheDir, `${DIR_PREFIX}${recipe}-${digest(await memorizedVersions(cacheDir))}`),
  );
  if (existsSync(built.disk)) return built;
  try {
    return await buildNewest(cacheDir, recipe, log);
  } catch (error) {
    const older = findOlder(cacheDir, recipe);
    if (older === undefined) throw new Error("the small guest could not be built", { cause: error });
    log(`the newest packages are out of reach, using the guest built from older ones (${String(error)})`);
    return older;
  }
}

/**
 * @param {string} cacheDir
 * @param {string} recipe
 * @param {(line: string) => void} log
 */
async function buildNewest(cacheDir, recipe, log) {
  log("building the small guest from Debian packages");
  const workDir = join(cacheDir, `${DIR_PREFIX}${recipe}.${process.pid}${PART_SUFFIX}`);
  rmSync(workDir, { recursive: true, force: true });
  mkdirSync(workDir);
  try {
    const { tree, packages } = await unpackNewest(workDir, log);
    await build(tree, workDir);
    writeFileSync(join(workDir, "packages.json"), JSON.stringify(packages, null, 2));
    for (const done of ["archives", "tree"]) rmSync(join(workDir, done), { recursive: true });
    const dir = join(cacheDir, `${DIR_PREFIX}${recipe}-${digest(packages)}`);
    // Somebody else may have finished the same meanwhile: one is as good as the other.
    if (!existsSync(dir)) renameSync(workDir, dir);
    return guestOf(dir);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

/**
 * @param {string} workDir
 * @param {(line: string) => void} log
 */
async function unpackNewest(workDir, log) {
  try {
    const packages = await findGuestPackages();
    if (packages !== undefined) return { packages, tree: await unpackPackages(packages, workDir) };
  } catch (error) {
    // The lists are older than the archive, which keeps the newest versions only.
    log(`a download failed, updating the lists of packages (${String(error)})`);
    for (const half of ["archives", "tree"]) rmSync(join(workDir, half), { recursive: true, force: true });
  }
  await refreshPackageLists();
  const packages = await findGuestPackages();
  if (packages === undefined) throw new Error("apt offers no kernel package for virtual machines");
  return { packages, tree: await unpackPackages(packages, workDir) };
}

/**
 * @param {string} tree unpacked packages
 * @param {string} dir where kernel, initrd and disk are put
 */
async function build(tree, dir) {
  const { kernel, initrd, disk } = guestOf(dir);
  const vmlinuz = readdirSync(join(tree, "boot")).find((name) => name.startsWith("vmlinuz-"));
  if (vmlinuz === undefined) throw new Error("the kernel package holds no kernel");
  copyFileSync(join(tree, "boot", vmlinuz), kernel);

  const modulesDir = join(tree, "lib/modules", vmlinuz.replace("vmlinuz-", ""));
  const modules = await collectModules(modulesDir, GUEST_MODULES);
  const cdromModules = await collectModules(modulesDir, CDROM_MODULES);
  const busyboxPath = join(tree, existsSync(join(tree, "bin/busybox")) ? "bin/busybox" : "usr/bin/busybox");
  const applets = (await run(busyboxPath, ["--list"])).split("\n").filter(Boolean);
  const busybox = readFileSync(busyboxPath);
  writeFileSync(
    initrd,
    gzipSync(packCpio(rootFiles({ busybox, applets, modules, cdromModules })), { level: 9 }),
  );
  await buildBootDisk({ kernel, initrd, kernelArgs: GUEST_KERNEL_ARGS, workDir: dir, disk });
}

/**
 * @param {string} dir
 * @returns {GuestImage}
 */
function guestOf(dir) {
  return { kernel: join(dir, "vmlinuz"), initrd: join(dir, "initrd"), disk: join(dir, "disk.qcow2") };
}

/**
 * Asking apt takes a second: its answer is kept until its lists change.
 * @param {string} cacheDir
 * @returns {Promise<PackageVersion[] | undefined>}
 */
async function memorizedVersions(cacheDir) {
  const file = join(cacheDir, "guest-packages");
  const listsTime = String(statSync("/var/lib/apt/lists", { throwIfNoEntry: false })?.mtimeMs ?? 0);
  const [knownTime, ...known] = existsSync(file) ? readFileSync(file, "utf8").split("\n") : [];
  if (knownTime === listsTime) {
    return known.map((line) => line.split(" ")).map(([name = "", version = ""]) => ({ name, version }));
  }
  const packages = await findGuestPackages();
  if (packages === undefined) return undefined;
  const lines = [listsTime, ...packages.map(({ name, version }) => `${name} ${version}`)];
  writeFileSync(`${file}.${process.pid}`, lines.join("\n"));
  renameSync(`${file}.${process.pid}`, file);
  return packages;
}

/**
 * @param {string} cacheDir
 * @param {string} recipe
 * @returns {GuestImage | undefined} the youngest guest of this recipe
 */
function findOlder(cacheDir, recipe) {
  const dirs = readdirSync(cacheDir)
    .filter((name) => name.startsWith(`${DIR_PREFIX}${recipe}-`))
    .map((name) => join(cacheDir, name))
    .sort((one, other) => statSync(other).mtimeMs - statSync(one).mtimeMs);
  return dirs.map(guestOf).find(({ disk }) => existsSync(disk));
}

/** @param {string} cacheDir */
function removeAbandoned(cacheDir) {
  for (const name of readdirSync(cacheDir)) {
    const path = join(cacheDir, name);
    if (!name.startsWith(DIR_PREFIX) || !name.endsWith(PART_SUFFIX)) continue;
    const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - made > ABANDONED_AFTER_MS) rmSync(path, { recursive: true, force: true });
  }
}

/** The recipe is the text of the modules that make the guest. */
function recipeDigest() {
  const own = fileURLToPath(import.meta.url);
  const dir = own.replace(/\.mjs$/, "");
  const files = [own, ...readdirSync(dir).map((name) => join(dir, name))];
  return digest(files.map((file) => readFileSync(file, "utf8")));
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function digest(value) {
  return createHash("sha256")
    .update(JSON.stringify([value]))
    .digest("hex")
    .slice(0, 12);
}

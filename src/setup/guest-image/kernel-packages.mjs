// The Debian or Ubuntu packages a guest is made of: which, in which version, and their contents. They are unpacked,
// never installed.
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { run, runToEnd } from "../run-program.mjs";

/** @typedef {{ name: string, version: string }} PackageVersion */

// Packages that stand for the newest kernel made for virtual machines, Debian's then Ubuntu's.
const KERNEL_PACKAGES = ["linux-image-cloud-amd64", "linux-image-virtual"];

/**
 * The packages in the versions this machine's apt would take.
 * @returns {Promise<PackageVersion[] | undefined>} undefined where apt knows them not, as before its first update
 */
export async function findGuestPackages() {
  for (const name of KERNEL_PACKAGES) {
    const [newest] = await show([name]);
    const image =
      newest === undefined ? undefined : dependsOn(newest).find((other) => /^linux-image-\d/.test(other));
    if (image === undefined) continue;
    // Ubuntu ships the modules apart from the kernel.
    const modules = image.replace(/^linux-image-/, "linux-modules-");
    const found = await show([image, modules, "busybox-static"]);
    return found.map((record) => ({ name: field(record, "Package"), version: field(record, "Version") }));
  }
  return undefined;
}

/**
 * @param {readonly string[]} names
 * @returns {Promise<string[]>} control records of those that exist
 */
async function show(names) {
  const { stdout } = await runToEnd("apt-cache", ["show", "--no-all-versions", ...names]);
  return stdout.split(/\n\n+/).filter((record) => record.includes("Package:"));
}

/** @param {string} record */
function dependsOn(record) {
  return field(record, "Depends")
    .split(/[,|]/)
    .map((one) => one.trim().split(/[\s:(]/)[0] ?? "");
}

/**
 * @param {string} record
 * @param {string} name
 */
function field(record, name) {
  return new RegExp(`^${name}: (.*)$`, "m").exec(record)?.[1] ?? "";
}

/**
 * Downloads packages with apt, from where it is configured to take them, and unpacks them into one tree.
 * @param {readonly PackageVersion[]} packages
 * @param {string} workDir
 * @returns {Promise<string>} the tree
 */
export async function unpackPackages(packages, workDir) {
  const archives = join(workDir, "archives");
  const tree = join(workDir, "tree");
  mkdirSync(archives);
  mkdirSync(tree);
  const wanted = packages.map(({ name, version }) => `${name}=${version}`);
  // As root, apt would download as a user of its own, who may not write here.
  await run("apt-get", ["--quiet", "--option=APT::Sandbox::User=root", "download", ...wanted], {
    cwd: archives,
  });
  for (const archive of readdirSync(archives))
    await run("dpkg-deb", ["--extract", join(archives, archive), tree]);
  return tree;
}

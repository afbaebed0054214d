// What quickstart's VM will run on: this machine's QEMU where it can be had, else simulated hosts.
import { join } from "node:path";
import {
  canInstallPackages,
  ensurePackages,
  GUEST_IMAGE_PACKAGES,
  HYPERVISOR_PACKAGES,
  missingPackages,
} from "../debian-packages.mjs";
import { buildGuestImage } from "../guest-image.mjs";
import { ensureLibvirtd } from "../libvirtd.mjs";
import { withProgress } from "../progress.mjs";

/**
 * @typedef {object} Ground
 * @property {"real" | "simulated"} kind
 * @property {readonly { name: string, uri: string, accelerator: import("./options.mjs").Accelerator }[]} hosts
 * @property {import("../guest-image.mjs").GuestImage | null} guest null: simulated guests need none
 * @property {() => Promise<void>} stop
 */

const PACKAGES = [...HYPERVISOR_PACKAGES, ...GUEST_IMAGE_PACKAGES];

/**
 * @param {import("./options.mjs").QuickstartOptions} options
 * @param {import("../progress.mjs").Log} log
 * @returns {Promise<Ground>}
 */
export async function prepareHosts(options, log) {
  const obstacle = await obstacleToReal();
  if (obstacle !== null) return simulated(obstacle, log);
  await withProgress(log, "looking for Debian packages", () => ensurePackages(PACKAGES, { announce: log }));
  const guest = await withProgress(log, "building a small Linux to boot", () => buildGuestImage({ log }));
  const dir = join(options.dataDir, "libvirt");
  const maskKvm = options.accelerator === "tcg";
  const libvirt = await withProgress(log, "starting libvirt", () => ensureLibvirtd({ dir, maskKvm, log }));
  const hosts = [{ name: "local", uri: libvirt.uri, accelerator: options.accelerator }];
  const stop = () => withProgress(log, "stopping libvirt", libvirt.stop);
  return { kind: "real", hosts, guest, stop };
}

/** @returns {Promise<string | null>} why nothing real can run here; null: it can */
async function obstacleToReal() {
  if (process.platform !== "linux")
    return `QEMU with libvirt is set up on Linux only, this is ${process.platform}`;
  if (process.arch !== "x64") return `the small guest is built on x86-64 only, this is ${process.arch}`;
  const answer = await canInstallPackages();
  if (answer.possible) return null;
  const missing = await missingPackages(PACKAGES).catch(() => PACKAGES);
  // Starting a private libvirtd takes root as much as installing one does.
  return missing.length > 0
    ? `${answer.reason}, and these packages are missing: ${missing.join(" ")}`
    : answer.reason;
}

/**
 * @param {string} reason
 * @param {import("../progress.mjs").Log} log
 * @returns {Ground}
 */
function simulated(reason, log) {
  log(`no real hypervisor here: ${reason}`);
  log("registering simulated hosts instead. NOTHING REAL RUNS: the VMs below are rows in a database");
  const hosts = ["sim-1", "sim-2"].map((name) => ({
    name,
    uri: `sim+kvm://${name}?cpus=16&memoryGib=64&latencyMs=200`,
    accelerator: /** @type {const} */ ("auto"),
  }));
  return { kind: "simulated", hosts, guest: null, stop: () => Promise.resolve() };
}

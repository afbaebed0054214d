// A libvirtd for this machine: the one that runs, which is left as it is, or a private one.
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startMachineLibvirt, stopMachineLibvirt } from "./private-libvirt/machine-libvirt.mjs";
import { libvirtAnswers, systemUri } from "./private-libvirt/private-libvirt.mjs";
import { rootAccess, runAsRoot } from "./privileges.mjs";
import { logLine } from "./progress.mjs";
import { run } from "./run-program.mjs";

const COMMAND = fileURLToPath(new URL("private-libvirt/command.mjs", import.meta.url));

/**
 * @typedef {object} MachineLibvirt
 * @property {string} uri for `POST /v1/hosts`
 * @property {boolean} isPrivate whether we started it, or adopted what an earlier run started
 * @property {readonly string[]} pools names of its running pools of directories
 * @property {readonly string[]} networks names of its running networks
 * @property {() => Promise<void>} stop stops a private one as a machine is powered off: guests are asked to shut down,
 *   then cut off; domains and volumes stay for the next run. Does nothing to the machine's own
 */

/**
 * Finds or starts libvirtd. One that has nowhere to put volumes is no use and is not changed: a private one is started
 * beside it, as where none runs. A private one outlives this process when that is killed, and is adopted by the next run.
 * @param {object} options
 * @param {string} options.dir where a private one keeps everything; a short path
 * @param {boolean} options.maskKvm whether a private one hides /dev/kvm, so that QEMU runs without acceleration
 * @param {import("./progress.mjs").Log} [options.log]
 * @returns {Promise<MachineLibvirt>}
 * @throws {Error} where none runs and none can be started
 */
export async function ensureLibvirtd({ dir, maskKvm, log = logLine }) {
  const system = "qemu:///system";
  if (await libvirtAnswers(system)) {
    const found = await inventory(system);
    if (found.pools.length > 0) {
      log("using the libvirtd that runs on this machine, as it is");
      return { uri: system, isPrivate: false, ...found, stop: () => Promise.resolve() };
    }
    log("the libvirtd that runs on this machine has no storage pool, and is left as it is");
  }
  const absolute = resolve(dir);
  const started = await startPrivate(absolute, maskKvm);
  log(started.adopted ? "using the private libvirtd of an earlier run" : "started a private libvirtd");
  if (started.withoutNetwork !== undefined) log(`it has no network: ${started.withoutNetwork}`);
  const uri = systemUri(absolute);
  return { uri, isPrivate: true, ...(await inventory(uri)), stop: () => stopPrivate(absolute) };
}

/**
 * @param {string} dir
 * @param {boolean} maskKvm
 * @returns {Promise<{ adopted: boolean, withoutNetwork?: string }>}
 */
async function startPrivate(dir, maskKvm) {
  if ((await rootAccess()) === "root") return startMachineLibvirt({ dir, maskKvm });
  const group = (await run("id", ["--group", "--name"])).trim();
  const args = ["start", dir, group, maskKvm ? "mask-kvm" : "keep-kvm"];
  /** @type {unknown} */
  const started = JSON.parse(await runAsRoot(process.execPath, [COMMAND, ...args]));
  const known = typeof started === "object" && started !== null ? started : {};
  return {
    adopted: "adopted" in known && known.adopted === true,
    ...("withoutNetwork" in known ? { withoutNetwork: String(known.withoutNetwork) } : {}),
  };
}

/** @param {string} dir */
async function stopPrivate(dir) {
  if ((await rootAccess()) === "root") await stopMachineLibvirt(dir);
  else await runAsRoot(process.execPath, [COMMAND, "stop", dir]);
}

/** @param {string} uri */
async function inventory(uri) {
  /** @param {readonly string[]} args */
  const names = async (args) =>
    (await run("virsh", ["-q", "-c", uri, ...args])).split(/\s*\n/).filter(Boolean);
  return {
    pools: await names(["pool-list", "--type", "dir", "--name"]),
    networks: await names(["net-list", "--name"]),
  };
}

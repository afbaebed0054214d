// A libvirtd with virtlogd of its own: libvirt's directories are compiled in, so it runs in a mount namespace where they
// are private. Used by quickstart where no libvirtd runs, and by the tests, whose hosts get a network of their own too.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isAlive, signalProcess, waitUntil } from "../processes.mjs";
import { run, runToEnd } from "../run-program.mjs";
import { restoreCapabilities, saveCapabilities } from "./capabilities-cache.mjs";
import { makeCgroups, removeCgroups } from "./cgroups.mjs";
import { libvirtdConf } from "./configuration.mjs";
import { setupCommands, writeConfiguration } from "./layout.mjs";
import { endNamespace, findOuterProcess, runInside, startNamespace } from "./namespace.mjs";

/**
 * @typedef {import("../processes.mjs").ProcessIdentity} ProcessIdentity
 * @typedef {import("./namespace.mjs").Namespace} Namespace
 * @typedef {import("./configuration.mjs").Access} Access
 * @typedef {object} PrivateLibvirtOptions
 * @property {string} dir existing, empty or used by an earlier private libvirt; short, for it is part of socket paths
 * @property {string} name unique on the machine: host name inside, name of the cgroups
 * @property {boolean} ownNetwork
 * @property {number | "pipe"} lifeline see startNamespace
 * @property {boolean} maskKvm whether /dev/kvm is hidden, so that QEMU runs without acceleration
 * @property {{ bridge: string, subnet: string } | undefined} network network `default`; undefined: none
 */

/**
 * Makes namespaces with private directories and configuration. No daemon runs yet.
 * @param {PrivateLibvirtOptions} options
 * @returns {Promise<Namespace>}
 */
export async function preparePrivateLibvirt(options) {
  writeConfiguration(options);
  restoreCapabilities(join(options.dir, "cache"));
  const { name, ownNetwork, lifeline } = options;
  const namespace = await startNamespaceOrNothing(name, ownNetwork, lifeline);
  try {
    for (const [program = "", ...args] of setupCommands(options, namespace))
      await runInside(namespace, program, args);
  } catch (error) {
    await removePrivateLibvirt(namespace, name);
    throw error;
  }
  return namespace;
}

/**
 * @param {string} name
 * @param {boolean} ownNetwork
 * @param {number | "pipe"} lifeline
 */
async function startNamespaceOrNothing(name, ownNetwork, lifeline) {
  try {
    return await startNamespace({ ownNetwork, cgroups: makeCgroups(name), lifeline });
  } catch (error) {
    await waitUntil(`cgroups ${name} are free`, () => removeCgroups(name), { timeoutSeconds: 30 });
    throw error;
  }
}

/**
 * Starts virtlogd and libvirtd inside and waits until libvirtd answers.
 * @param {Namespace} namespace
 * @param {string} dir
 * @param {Access} [access]
 */
export async function startDaemons(namespace, dir, access = {}) {
  await startVirtlogd(namespace, dir);
  await startLibvirtd(namespace, dir, access);
  if (saveCapabilities(join(dir, "cache"))) return;
  // A first start on this machine: let libvirt probe QEMU now, for the starts to come.
  await run("virsh", ["-q", "-c", systemUri(dir), "capabilities"]);
  saveCapabilities(join(dir, "cache"));
}

/**
 * @param {Namespace} namespace
 * @param {string} dir
 */
async function startVirtlogd(namespace, dir) {
  if (findDaemon(namespace, dir, "virtlogd") !== undefined) return;
  await runInside(namespace, "virtlogd", ["--daemon", "--pid-file", "/run/libvirt/virtlogd.pid"]);
}

/**
 * Starts libvirtd inside and waits until it answers.
 * @param {Namespace} namespace
 * @param {string} dir
 * @param {Access} [access]
 * @throws {Error} with the end of its log when it does not
 */
export async function startLibvirtd(namespace, dir, access = {}) {
  const hostUuid = readFileSync(join(dir, "host-uuid"), "utf8");
  writeFileSync(join(dir, "etc/libvirtd.conf"), libvirtdConf(hostUuid, access));
  const args = [
    "--daemon",
    "--pid-file",
    "/run/libvirt/libvirtd.pid",
    ...(access.listen !== undefined ? ["--listen"] : []),
  ];
  try {
    await runInside(namespace, "libvirtd", args);
    await waitUntil("libvirtd answers", () => libvirtAnswers(systemUri(dir)), { timeoutSeconds: 60 });
  } catch (error) {
    const log = join(dir, "log/libvirtd.log");
    const end = existsSync(log) ? readFileSync(log, "utf8").slice(-2000) : "";
    throw new Error(`libvirtd in ${dir} did not start; its log ends with:\n${end}`, { cause: error });
  }
}

/**
 * @param {string} uri
 * @returns {Promise<boolean>}
 */
export async function libvirtAnswers(uri) {
  // A daemon that hangs does not answer.
  return (await runToEnd("timeout", ["10", "virsh", "-q", "-c", uri, "uri"])).status === 0;
}

/**
 * @param {string} dir
 * @returns {string} libvirt's system socket of a private libvirt, as the outside sees it
 */
export function systemSocket(dir) {
  return join(dir, "run/libvirt-sock");
}

/**
 * @param {string} dir
 * @returns {string} the URI of its QEMU driver
 */
export function systemUri(dir) {
  return `qemu+unix:///system?socket=${systemSocket(dir)}`;
}

/**
 * A process by the pid file it wrote in libvirt's runtime directory.
 * @param {Namespace} namespace
 * @param {string} dir
 * @param {string} name "libvirtd", "virtlogd", or "qemu/<domain>"
 * @returns {ProcessIdentity | undefined} undefined when it does not run
 */
export function findDaemon(namespace, dir, name) {
  const file = join(dir, "run", `${name}.pid`);
  if (!existsSync(file)) return undefined;
  return findOuterProcess(namespace, Number(readFileSync(file, "utf8")));
}

/**
 * Ends a process and waits until it is gone.
 * @param {ProcessIdentity} target
 * @param {NodeJS.Signals} signal
 */
export async function endProcess(target, signal) {
  signalProcess(target, signal);
  await waitUntil(`process ${target.pid} ends`, () => !isAlive(target), { timeoutSeconds: 30 });
}

/**
 * Ends everything inside and removes the cgroups. The directory stays.
 * @param {Namespace} namespace
 * @param {string} name
 */
export async function removePrivateLibvirt(namespace, name) {
  await endNamespace(namespace);
  // A cgroup stays busy for an instant after its last process has ended.
  await waitUntil(`cgroups ${name} are free`, () => removeCgroups(name), { timeoutSeconds: 30 });
}

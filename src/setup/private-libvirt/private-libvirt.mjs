// A libvirtd with virtlogd of its own: libvirt's directories are compiled in, so it runs in a mount namespace where they
// are private. Used by quickstart where no libvirtd runs, and by the tests, whose hosts get a network of their own too.
import { randomUUID } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { isAlive, signalProcess, waitUntil } from "../processes.mjs";
import { run, runToEnd } from "../run-program.mjs";
import { restoreCapabilities, saveCapabilities } from "./capabilities-cache.mjs";
import { cgroupCommands, hideCgroupCommands, makeCgroups, removeCgroups } from "./cgroups.mjs";
import { defaultNetworkXml, defaultPoolXml, libvirtdConf, qemuConf, virtlogdConf } from "./configuration.mjs";
import { endNamespace, findOuterProcess, runInside, startNamespace } from "./namespace.mjs";

/** The pool `default` as the inside sees it. */
export const POOL_PATH = "/var/lib/libvirt/images";

const PRIVATE_DIRS = /** @type {const} */ ([
  ["etc", "/etc/libvirt"],
  ["lib", "/var/lib/libvirt"],
  ["cache", "/var/cache/libvirt"],
  ["log", "/var/log/libvirt"],
  ["run", "/run/libvirt"],
]);

/**
 * @typedef {import("../processes.mjs").ProcessIdentity} ProcessIdentity
 * @typedef {import("./namespace.mjs").Namespace} Namespace
 * @typedef {import("./configuration.mjs").Listen} Listen
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
    removeCgroups(name);
    throw error;
  }
}

/** @param {PrivateLibvirtOptions} options */
function writeConfiguration({ dir, network }) {
  for (const sub of [
    "etc/qemu/networks/autostart",
    "etc/storage/autostart",
    "lib/images",
    "log/qemu",
    "cache",
    "run",
  ]) {
    mkdirSync(join(dir, sub), { recursive: true });
  }
  copyMissing("/etc/libvirt/nwfilter", join(dir, "etc/nwfilter"));
  const uuidFile = join(dir, "host-uuid");
  if (!existsSync(uuidFile)) writeFileSync(uuidFile, randomUUID());
  const hostUuid = readFileSync(uuidFile, "utf8");
  writeFileSync(join(dir, "etc/qemu.conf"), qemuConf());
  writeFileSync(join(dir, "etc/virtlogd.conf"), virtlogdConf());
  const pool = defaultPoolXml({ uuid: hostUuid, path: POOL_PATH });
  writeAutostarted(join(dir, "etc/storage"), "/etc/libvirt/storage", pool);
  const networks = join(dir, "etc/qemu/networks");
  if (network === undefined) rmSync(join(networks, "autostart/default.xml"), { force: true });
  else
    writeAutostarted(
      networks,
      "/etc/libvirt/qemu/networks",
      defaultNetworkXml({ uuid: hostUuid, ...network }),
    );
}

/**
 * @param {string} dir
 * @param {string} innerDir the same directory as the inside sees it
 * @param {string} xml
 */
function writeAutostarted(dir, innerDir, xml) {
  const link = join(dir, "autostart/default.xml");
  writeFileSync(join(dir, "default.xml"), xml, { mode: 0o600 });
  rmSync(link, { force: true });
  symlinkSync(join(innerDir, "default.xml"), link);
}

/**
 * @param {string} from
 * @param {string} to
 */
function copyMissing(from, to) {
  mkdirSync(to, { recursive: true });
  if (!existsSync(from)) return;
  for (const file of readdirSync(from)) cpSync(join(from, file), join(to, file), { force: false });
}

/**
 * @param {PrivateLibvirtOptions} options
 * @param {Namespace} namespace
 * @returns {string[][]} argument vectors, program first, to be run inside in this order
 */
function setupCommands({ dir, name, ownNetwork, maskKvm }, namespace) {
  /** @type {string[][]} */
  const commands = [["hostname", name], ...hideCgroupCommands()];
  if (ownNetwork) {
    // /sys shows the network namespace it was mounted in.
    commands.push(["mount", "-t", "sysfs", "sysfs", "/sys"], ["ip", "link", "set", "lo", "up"]);
    // libvirt resolves its own name when asked for it; no name server is in reach.
    const hosts = join(dir, "hosts");
    writeFileSync(hosts, `127.0.0.1 localhost ${name}\n`);
    commands.push(["mount", "--bind", hosts, "/etc/hosts"]);
  }
  commands.push(...cgroupCommands(namespace.cgroups));
  // A private /run also hides the sockets of D-Bus and systemd: libvirt would register its guests there.
  commands.push(
    ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
    ["mkdir", "-p", "/run/sshd", "/run/lock"],
  );
  for (const [own, path] of PRIVATE_DIRS) {
    commands.push(["mkdir", "-p", path], ["mount", "--bind", join(dir, own), path]);
  }
  if (maskKvm && existsSync("/dev/kvm")) {
    // Read-only matters: libvirt probes QEMU anew, seconds per call, while /dev/kvm looks usable and is not.
    const empty = join(dir, "no-kvm");
    writeFileSync(empty, "");
    commands.push(["mount", "--bind", empty, "/dev/kvm"], ["mount", "-o", "remount,bind,ro", "/dev/kvm"]);
  }
  return commands;
}

/**
 * Starts virtlogd and libvirtd inside and waits until libvirtd answers.
 * @param {Namespace} namespace
 * @param {string} dir
 * @param {Listen} [listen] none: the unix socket only
 */
export async function startDaemons(namespace, dir, listen) {
  await startVirtlogd(namespace, dir);
  await startLibvirtd(namespace, dir, listen);
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
 * @param {Listen} [listen]
 * @throws {Error} with the end of its log when it does not
 */
export async function startLibvirtd(namespace, dir, listen) {
  const hostUuid = readFileSync(join(dir, "host-uuid"), "utf8");
  writeFileSync(join(dir, "etc/libvirtd.conf"), libvirtdConf(hostUuid, listen));
  const args = [
    "--daemon",
    "--pid-file",
    "/run/libvirt/libvirtd.pid",
    ...(listen !== undefined ? ["--listen"] : []),
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
  return (await runToEnd("virsh", ["-q", "-c", uri, "uri"])).status === 0;
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

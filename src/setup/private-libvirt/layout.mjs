// The directories and files of a private libvirt, and the mounts that put them where libvirt looks for its own.
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
import { cgroupCommands, hideCgroupCommands } from "./cgroups.mjs";
import { defaultNetworkXml, defaultPoolXml, qemuConf, virtlogdConf } from "./configuration.mjs";

/**
 * @typedef {import("./namespace.mjs").Namespace} Namespace
 * @typedef {import("./private-libvirt.mjs").PrivateLibvirtOptions} PrivateLibvirtOptions
 */

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
 * Writes everything but libvirtd.conf.
 * @param {PrivateLibvirtOptions} options
 */
export function writeConfiguration({ dir, network }) {
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
export function setupCommands({ dir, name, ownNetwork, maskKvm }, namespace) {
  /** @type {string[][]} */
  const commands = [...hideCgroupCommands()];
  if (ownNetwork) {
    commands.push(["hostname", name]);
    // /sys shows the network namespace it was mounted in.
    commands.push(["mount", "-t", "sysfs", "sysfs", "/sys"], ["ip", "link", "set", "lo", "up"]);
    // libvirt resolves its own name when asked for it; no name server is in reach.
    const hosts = join(dir, "hosts");
    writeFileSync(hosts, `127.0.0.1 localhost ${name}\n`);
    commands.push(["mount", "--bind", hosts, "/etc/hosts"]);
  }
  commands.push(...cgroupCommands(namespace.cgroups));
  commands.push(...hideServiceManager(ownNetwork));
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
 * Libvirt would register its guests with the machine's systemd, and its network rules with the machine's firewalld.
 * @param {boolean} ownNetwork
 * @returns {string[][]} argument vectors, program first
 */
function hideServiceManager(ownNetwork) {
  if (ownNetwork) {
    return [
      ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
      ["mkdir", "-p", "/run/sshd", "/run/lock"],
    ];
  }
  // The rest of /run stays: who shares the machine's network shares its lock on iptables.
  const dirs = ["/run/dbus", "/run/systemd"].filter((path) => existsSync(path));
  return dirs.map((path) => ["mount", "-t", "tmpfs", "tmpfs", path]);
}

// A private libvirt in the machine's own network, which outlives the process that started it: that process may be killed
// and its next run adopts it. Needs root.
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive } from "../processes.mjs";
import { run, runToEnd } from "../run-program.mjs";
import { removeCgroups } from "./cgroups.mjs";
import { readNamespace } from "./namespace-state.mjs";
import { findNatNetwork } from "./nat-network.mjs";
import {
  findDaemon,
  libvirtAnswers,
  preparePrivateLibvirt,
  removePrivateLibvirt,
  startDaemons,
  systemSocket,
  systemUri,
} from "./private-libvirt.mjs";

// Linux' sockaddr_un.sun_path, with its final zero.
const SOCKET_PATH_BYTES = 108;
const STATE_FILE = "namespace.json";
const GUEST_SHUTDOWN_SECONDS = 15;

/**
 * Starts the private libvirt of a directory, or adopts it where it runs already.
 * @param {object} options
 * @param {string} options.dir absolute
 * @param {boolean} options.maskKvm whether /dev/kvm is hidden from QEMU; an adopted one keeps what it had
 * @param {string} [options.group] whose members may use it, besides root
 * @returns {Promise<{ adopted: boolean, withoutNetwork?: string }>} withoutNetwork: why there is no network `default`
 */
export async function startMachineLibvirt({ dir, maskKvm, group }) {
  if (Buffer.byteLength(systemSocket(dir)) >= SOCKET_PATH_BYTES) {
    throw new Error(`the path of libvirt's socket would be too long: choose a shorter directory than ${dir}`);
  }
  const access = group === undefined ? {} : { group };
  const running = findRunning(dir);
  if (running !== undefined) {
    if (!(await libvirtAnswers(systemUri(dir)))) {
      if (findDaemon(running, dir, "libvirtd") !== undefined)
        throw new Error(`libvirtd in ${dir} hangs: end it`);
      await startDaemons(running, dir, access);
    }
    return { adopted: true };
  }
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  rmSync(join(dir, "run"), { recursive: true, force: true });
  const name = machineName(dir);
  // What one leaves that was killed from outside, its bridge below as well; a new one cannot be made over it.
  removeCgroups(name);
  const nat = await findNatNetwork(dir);
  if (nat.network !== undefined) await runToEnd("ip", ["link", "delete", nat.network.bridge]);
  const namespace = await startHolder({ dir, name, maskKvm, network: nat.network });
  try {
    await startDaemons(namespace, dir, access);
  } catch (error) {
    await removePrivateLibvirt(namespace, name);
    throw error;
  }
  const withoutNetwork = nat.network === undefined ? nat.reason : await startNetwork(dir);
  return { adopted: false, ...(withoutNetwork === undefined ? {} : { withoutNetwork }) };
}

/**
 * @param {{ dir: string, name: string, maskKvm: boolean, network: import("./nat-network.mjs").NatNetwork | undefined }} options
 */
async function startHolder({ dir, name, maskKvm, network }) {
  // Process 1 inside reads from a pipe that it holds open itself: nobody's end is its end.
  const pipe = join(dir, "lifeline");
  if (!existsSync(pipe)) await run("mkfifo", [pipe]);
  const lifeline = openSync(pipe, "r+");
  try {
    const namespace = await preparePrivateLibvirt({
      dir,
      name,
      ownNetwork: false,
      lifeline,
      maskKvm,
      network,
    });
    writeFileSync(join(dir, `${STATE_FILE}.part`), JSON.stringify(namespace));
    renameSync(join(dir, `${STATE_FILE}.part`), join(dir, STATE_FILE));
    return namespace;
  } finally {
    closeSync(lifeline);
  }
}

/**
 * @param {string} dir
 * @returns {Promise<string | undefined>} why network `default` does not run
 */
async function startNetwork(dir) {
  const { stdout } = await virsh(dir, ["net-list", "--name"]);
  if (stdout.split("\n").includes("default")) return undefined;
  const { stderr } = await virsh(dir, ["net-start", "default"]);
  // Unusable, so not offered to anybody.
  await virsh(dir, ["net-undefine", "default"]);
  return stderr.trim();
}

/**
 * Stops the private libvirt of a directory, as a machine is powered off: guests are asked to shut down and cut off when
 * they do not, networks are taken down. Domains, volumes and networks stay defined for the next start.
 * @param {string} dir
 */
export async function stopMachineLibvirt(dir) {
  const namespace = findRunning(dir);
  if (namespace === undefined) return;
  if (await libvirtAnswers(systemUri(dir))) {
    await stopGuests(dir);
    for (const network of await names(dir, ["net-list", "--name"]))
      await virsh(dir, ["net-destroy", network]);
  }
  await removePrivateLibvirt(namespace, machineName(dir));
  for (const left of [STATE_FILE, "lifeline", "run"])
    rmSync(join(dir, left), { recursive: true, force: true });
}

/** @param {string} dir */
async function stopGuests(dir) {
  const running = () => names(dir, ["list", "--name"]);
  for (const guest of await running()) await virsh(dir, ["shutdown", guest]);
  const deadline = performance.now() + GUEST_SHUTDOWN_SECONDS * 1000;
  while ((await running()).length > 0 && performance.now() < deadline) await sleep(200);
  for (const guest of await running()) await virsh(dir, ["destroy", guest]);
}

/**
 * @param {string} dir
 * @param {readonly string[]} args
 */
async function names(dir, args) {
  return (await virsh(dir, args)).stdout.split("\n").filter(Boolean);
}

/**
 * @param {string} dir
 * @param {readonly string[]} args
 */
function virsh(dir, args) {
  return runToEnd("timeout", ["60", "virsh", "-q", "-c", systemUri(dir), ...args]);
}

/**
 * @param {string} dir
 * @returns {import("./namespace.mjs").Namespace | undefined}
 */
function findRunning(dir) {
  const file = join(dir, STATE_FILE);
  const namespace = existsSync(file) ? readNamespace(readFileSync(file, "utf8")) : undefined;
  return namespace !== undefined && isAlive(namespace.holder) ? namespace : undefined;
}

/** @param {string} dir */
function machineName(dir) {
  return `drover-${createHash("sha256").update(dir).digest("hex").slice(0, 8)}`;
}

// A set of Linux namespaces with a process 1 of our own. Ending that process ends every process inside and with them
// the namespaces, their mounts and their network links: nothing is named, so nothing can be left behind.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { Socket } from "node:net";
import { identifyProcess, isAlive, signalProcess, waitUntil } from "../processes.mjs";
import { ProgramError, runToEnd } from "../run-program.mjs";
import { settleCgroups } from "./cgroups.mjs";

/**
 * @typedef {import("../processes.mjs").ProcessIdentity} ProcessIdentity
 * @typedef {object} Namespace
 * @property {ProcessIdentity} holder process 1 of the namespaces, as seen from outside
 * @property {import("./cgroups.mjs").Cgroups} cgroups
 * @property {boolean} ownNetwork
 */

// Joins the cgroups given before "--", then becomes the program after it.
const JOIN_CGROUPS =
  'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"';

// Process 1 inside. Bash, because it reaps the orphans it is given while it waits for input. It tells its outer pid
// (the old /proc still shows it) and that it is ready, then waits for the end of its standard input, which is the end of
// its owner.
const HOLDER =
  'read -r pid _ </proc/self/stat; echo "$pid"; mount -t proc proc /proc || exit 1; echo ready; exec >/dev/null 2>&1; while read -r _; do :; done';

/**
 * Starts the namespaces: mount, UTS, IPC, process, cgroup and, where asked for, network.
 * @param {object} options
 * @param {boolean} options.ownNetwork
 * @param {import("./cgroups.mjs").Cgroups} options.cgroups
 * @param {number | "pipe"} options.lifeline standard input of process 1; it ends when it reads end of file. "pipe"
 *   ties it to this process
 * @returns {Promise<Namespace>}
 */
export async function startNamespace({ ownNetwork, cgroups, lifeline }) {
  const flags = [
    "--fork",
    "--kill-child",
    "--mount",
    "--propagation",
    "private",
    "--uts",
    "--ipc",
    "--pid",
    "--cgroup",
  ];
  if (ownNetwork) flags.push("--net");
  const unshare = ["unshare", ...flags, "bash", "-c", HOLDER];
  const child = spawn("bash", ["-c", JOIN_CGROUPS, "join", ...cgroups.birthDirs, "--", ...unshare], {
    stdio: [lifeline, "pipe", "pipe"],
    cwd: "/",
    detached: true,
  });
  const holder = await waitForHolder(child);
  child.unref();
  child.stdout?.destroy();
  child.stderr?.destroy();
  // This process may end while the pipe is open: its end is what tells the namespace to go.
  if (child.stdin instanceof Socket) child.stdin.unref();
  const parents = child.pid === undefined ? [] : [child.pid];
  return { holder, cgroups: settleCgroups(cgroups, [...parents, holder.pid]), ownNetwork };
}

/**
 * @param {import("node:child_process").ChildProcess} child what makes the namespaces
 * @returns {Promise<ProcessIdentity>}
 * @throws {Error} when they are not made; then the child is ended
 */
async function waitForHolder(child) {
  let output = "";
  let complaints = "";
  child.stdout?.setEncoding("utf8").on("data", (/** @type {string} */ text) => (output += text));
  child.stderr?.setEncoding("utf8").on("data", (/** @type {string} */ text) => (complaints += text));
  child.on("error", (error) => (complaints += error.message));
  const isOver = () => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  const limits = { timeoutSeconds: 60, intervalMs: 5 };
  try {
    await waitUntil("namespaces are made", () => output.includes("ready\n") || isOver(), limits);
    const holder = identifyProcess(Number.parseInt(output, 10));
    if (holder === undefined || isOver()) throw new Error(`no namespaces were made: ${complaints.trim()}`);
    return holder;
  } catch (error) {
    child.kill("SIGKILL");
    await waitUntil("what made namespaces ends", isOver, limits);
    throw error;
  }
}

/**
 * The argument vector which runs a program inside.
 * @param {Namespace} namespace
 * @param {string} program
 * @param {readonly string[]} args
 * @returns {[string, string[]]}
 */
function insideCommand(namespace, program, args) {
  const kinds = [
    "--mount",
    "--uts",
    "--ipc",
    "--pid",
    "--cgroup",
    ...(namespace.ownNetwork ? ["--net"] : []),
  ];
  const enter = ["nsenter", "--target", String(namespace.holder.pid), ...kinds, "--", program, ...args];
  return ["bash", ["-c", JOIN_CGROUPS, "join", ...namespace.cgroups.dirs, "--", ...enter]];
}

/**
 * Runs a program inside to its end.
 * @param {Namespace} namespace
 * @param {string} program
 * @param {readonly string[]} args
 * @returns {Promise<string>} its standard output
 */
export async function runInside(namespace, program, args) {
  const outcome = await runToEnd(...insideCommand(namespace, program, args));
  if (outcome.status !== 0) throw new ProgramError(program, args, outcome);
  return outcome.stdout;
}

/**
 * The pid outside of a process known by its pid inside.
 * @param {Namespace} namespace
 * @param {number} innerPid
 * @returns {ProcessIdentity | undefined}
 */
export function findOuterProcess(namespace, innerPid) {
  for (const pid of pidsInside(namespace)) {
    const inner = /^NSpid:.*\t(\d+)$/m.exec(readProcFile(pid, "status"))?.[1];
    if (Number(inner) === innerPid) return identifyProcess(pid);
  }
  return undefined;
}

/**
 * @param {Namespace} namespace
 * @returns {number[]} outer pids of all processes inside, zombies left out
 */
function pidsInside(namespace) {
  const own = namespaceOf(namespace.holder.pid);
  if (own === "") return [];
  const pids = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  return pids.filter((pid) => namespaceOf(pid) === own && identifyProcess(pid) !== undefined);
}

/** @param {number} pid */
function namespaceOf(pid) {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return ""; // the process has ended meanwhile
  }
}

/**
 * @param {number} pid
 * @param {string} name
 */
function readProcFile(pid, name) {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "latin1");
  } catch {
    return ""; // the process has ended meanwhile
  }
}

/**
 * Ends every process inside, and so the namespaces.
 * @param {Namespace} namespace
 */
export async function endNamespace(namespace) {
  const inside = pidsInside(namespace).flatMap((pid) => identifyProcess(pid) ?? []);
  signalProcess(namespace.holder, "SIGKILL");
  await waitUntil(`processes of namespace ${namespace.holder.pid} end`, () => !inside.some(isAlive), {
    timeoutSeconds: 30,
    intervalMs: 5,
  });
}

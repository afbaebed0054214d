// Questions about processes, answered from /proc. `kill(pid, 0)` succeeds on zombies, which stay for ever where
// process 1 reaps nobody, and a pid alone may meanwhile belong to somebody else: so a process is a pid and the time
// it was started.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * @typedef {object} ProcessIdentity
 * @property {number} pid
 * @property {string} startTime clock ticks since the machine's boot, field 22 of /proc/PID/stat
 */

/**
 * @param {number} pid
 * @returns {ProcessIdentity | undefined} undefined when no such process lives (a zombie does not)
 */
export function identifyProcess(pid) {
  let stat;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined; // gone: what this function is there to tell
  }
  // The second field is the program's name in brackets and may itself hold brackets and spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTime = fields[19];
  if (startTime === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startTime };
}

/**
 * @param {ProcessIdentity} process
 * @returns {boolean}
 */
export function isAlive(process) {
  return identifyProcess(process.pid)?.startTime === process.startTime;
}

/**
 * Sends a signal to a process unless it is gone.
 * @param {ProcessIdentity} target
 * @param {NodeJS.Signals} signal
 */
export function signalProcess(target, signal) {
  if (!isAlive(target)) return;
  try {
    process.kill(target.pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/**
 * Waits until a condition holds.
 * @param {string} what named in the error: "libvirtd answers"
 * @param {() => boolean | Promise<boolean>} condition
 * @param {{ timeoutSeconds: number, intervalMs?: number }} limits
 * @throws {Error} when it does not hold in time
 */
export async function waitUntil(what, condition, { timeoutSeconds, intervalMs = 20 }) {
  const deadline = performance.now() + timeoutSeconds * 1000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutSeconds} s in vain: ${what}`);
    await sleep(intervalMs);
  }
}

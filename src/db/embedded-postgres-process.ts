import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseSetupError } from "./setup-error.ts";

/** What a running server writes into `postmaster.pid`, by line. */
export interface PostmasterFile {
  readonly pid: number;
  readonly socketDirectory: string;
}

const POLL_MS = 20;
const FAST_SHUTDOWN_SECONDS = 60;
const IMMEDIATE_SHUTDOWN_SECONDS = 20;
const ORPHANS_SECONDS = 20;

/** Reads the text of `postmaster.pid`; null when it is not whole, as for an instant while it is written. */
export function parsePostmasterFile(text: string): PostmasterFile | null {
  const [pid, , , , socketDirectory] = text.split("\n");
  if (pid === undefined || socketDirectory === undefined || !/^[1-9]\d*$/.test(pid)) return null;
  return { pid: Number(pid), socketDirectory };
}

export function readPostmasterFile(cluster: string): PostmasterFile | null {
  try {
    return parsePostmasterFile(readFileSync(join(cluster, "postmaster.pid"), "utf8"));
  } catch (error) {
    if (isGone(error)) return null;
    throw error;
  }
}

/**
 * True when the process is a Postgres of this cluster: every one of them has the cluster as its working directory.
 * So neither a zombie, which has none, nor another program that was given the pid later is taken for it.
 */
export function isServerProcess(pid: number, cluster: string): boolean {
  try {
    const program = basename(readlinkSync(`/proc/${pid}/exe`)).replace(/ \(deleted\)$/, "");
    return program === "postgres" && readlinkSync(`/proc/${pid}/cwd`) === realpathSync(cluster);
  } catch (error) {
    // Ended, a zombie, or another user's, whom ours never is.
    if (isGone(error) || isForbidden(error)) return false;
    throw error;
  }
}

/** The processes of this cluster's server, its children included. */
export function serverProcesses(cluster: string): readonly number[] {
  const pids = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? [Number(name)] : []));
  return pids.filter((pid) => isServerProcess(pid, cluster));
}

/**
 * Waits until no process of a dead server is left: children of a killed postmaster end by themselves, and a new
 * server beside them would destroy data. Postgres' own guard against that is in the file that we are to remove.
 */
export async function waitForOrphans(cluster: string): Promise<void> {
  if (await waitFor(() => serverProcesses(cluster).length === 0, ORPHANS_SECONDS)) return;
  const pids = serverProcesses(cluster).join(", ");
  throw new DatabaseSetupError(
    `The embedded Postgres in ${cluster} died, but its processes ${pids} are still there. End them, then start again.`,
  );
}

/**
 * Stops a server in order: running statements are cancelled, everything committed is kept. Throws when it does not
 * end, naming the process.
 */
export async function stopServer(pid: number, cluster: string): Promise<void> {
  const gone = (): boolean => !isServerProcess(pid, cluster);
  signal(pid, "SIGINT");
  if (await waitFor(gone, FAST_SHUTDOWN_SECONDS)) return;
  signal(pid, "SIGQUIT");
  if (await waitFor(gone, IMMEDIATE_SHUTDOWN_SECONDS)) return;
  throw new DatabaseSetupError(
    `The embedded Postgres (process ${pid}, in ${cluster}) did not stop; see its log there.`,
  );
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

async function waitFor(condition: () => boolean, seconds: number): Promise<boolean> {
  const deadline = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

function isGone(error: unknown): boolean {
  return hasCode(error, "ENOENT") || hasCode(error, "ESRCH");
}

function isForbidden(error: unknown): boolean {
  return hasCode(error, "EACCES") || hasCode(error, "EPERM");
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

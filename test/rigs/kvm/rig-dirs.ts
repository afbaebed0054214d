import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { findCgroups, removeCgroups } from "../../../src/setup/private-libvirt/cgroups.mjs";
import { identifyProcess, isAlive, type ProcessIdentity } from "../../../src/setup/processes.mjs";

// Not TMPDIR: the paths of unix sockets below must stay under 107 bytes.
const PARENT = "/tmp";
const PREFIX = "drover-kvm-";
const OWNER_FILE = "owner.json";
const MAKING_TAKES_AT_MOST_MS = 60_000;

/** Makes the directory of one host, which names this process as its owner. */
export function makeRigDir(): string {
  const dir = mkdtempSync(join(PARENT, PREFIX));
  writeFileSync(join(dir, OWNER_FILE), JSON.stringify(identifyProcess(process.pid)));
  return dir;
}

/** The name of the host in a directory: unique on the machine, and short enough for a host name. */
export function rigName(dir: string): string {
  return basename(dir).toLowerCase();
}

/**
 * Removes what is left of hosts whose test process is gone. Their processes, namespaces and links ended with it: process
 * 1 of a host ends when its standard input does.
 */
export function sweepStaleRigs(): void {
  const stale = rigDirs().filter((dir) => !isOwned(dir) && removeCgroups(rigName(dir)));
  for (const dir of stale) rmSync(dir, { recursive: true, force: true });
  // A directory may have been removed by hand: what is left then are empty cgroups.
  const known = new Set(rigDirs().map(rigName));
  for (const name of findCgroups(PREFIX)) if (!known.has(name)) removeCgroups(name);
}

function rigDirs(): string[] {
  return readdirSync(PARENT)
    .filter((entry) => entry.startsWith(PREFIX))
    .map((entry) => join(PARENT, entry));
}

function isOwned(dir: string): boolean {
  const owner = readOwner(dir);
  if (owner !== undefined) return isAlive(owner);
  // Without an owner file it is either being made or being removed by somebody else just now.
  const made = statSync(dir, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
  return Date.now() - made < MAKING_TAKES_AT_MOST_MS;
}

function readOwner(dir: string): ProcessIdentity | undefined {
  try {
    const owner: unknown = JSON.parse(readFileSync(join(dir, OWNER_FILE), "utf8"));
    return isProcessIdentity(owner) ? owner : undefined;
  } catch {
    return undefined; // missing, or half written by a process that was killed
  }
}

function isProcessIdentity(value: unknown): value is ProcessIdentity {
  if (typeof value !== "object" || value === null) return false;
  return (
    "pid" in value &&
    typeof value.pid === "number" &&
    "startTime" in value &&
    typeof value.startTime === "string"
  );
}

/** Makes a directory below a host's own, for keys: readable by its owner only. */
export function makeSecretDir(dir: string, name: string): string {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

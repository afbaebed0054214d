import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { identifyProcess, isAlive, type ProcessIdentity } from "../../src/setup/processes.mjs";

// Not TMPDIR: the paths of unix sockets below must stay under 107 bytes.
const PARENT = "/tmp";
const OWNER_FILE = "owner.json";
const MAKING_TAKES_AT_MOST_MS = 60_000;

/** Makes a directory in /tmp which names this process as its owner. */
export function makeOwnedDir(prefix: string): string {
  const dir = mkdtempSync(join(PARENT, prefix));
  writeFileSync(join(dir, OWNER_FILE), JSON.stringify(identifyProcess(process.pid)));
  return dir;
}

/** The directories so made, whoever made them. */
export function ownedDirs(prefix: string): string[] {
  return readdirSync(PARENT)
    .filter((entry) => entry.startsWith(prefix))
    .map((entry) => join(PARENT, entry));
}

/** Whether the process that made a directory still lives. */
export function isOwned(dir: string): boolean {
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

import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseSetupError } from "./setup-error.ts";

/**
 * Locks between processes that the kernel drops when their holder ends, kill -9 included. Node has no flock(); its
 * SQLite takes fcntl locks on a file, shared or exclusive, and that is all we use of it: the files stay empty.
 *
 * Never open such a file by other means: closing any descriptor of it would drop this process's locks on it.
 */
export interface FileLock {
  release(): void;
}

export type LockMode = "shared" | "exclusive";

const POLL_MS = 25;
const SQLITE_BUSY = 5;

/** Takes the lock, or returns null when another holder is in the way. Creates the file in an existing directory. */
export function tryFileLock(path: string, mode: LockMode): FileLock | null {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    // A deferred transaction takes its shared lock with the first read, and keeps it.
    database.exec(mode === "exclusive" ? "BEGIN EXCLUSIVE" : "BEGIN; SELECT count(*) FROM sqlite_master");
    const held = database;
    return {
      release: () => {
        if (held.isOpen) held.close();
      },
    };
  } catch (cause) {
    if (database?.isOpen === true) database.close();
    if (isBusy(cause)) return null;
    throw new DatabaseSetupError(`Cannot lock ${path}: is the data directory another user's?`, { cause });
  }
}

/** Waits for the lock; throws a DatabaseSetupError that names the file when it is not free in time. */
export async function fileLock(path: string, mode: LockMode, timeoutSeconds: number): Promise<FileLock> {
  const deadline = performance.now() + timeoutSeconds * 1000;
  for (;;) {
    const lock = tryFileLock(path, mode);
    if (lock !== null) return lock;
    if (performance.now() > deadline)
      throw new DatabaseSetupError(
        `Another process has held ${path} for ${timeoutSeconds} seconds while it starts or stops the embedded Postgres. Wait for it to end, or end it, then start again.`,
      );
    await sleep(POLL_MS);
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY;
}

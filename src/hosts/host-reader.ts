import type { Database } from "../db/client.ts";
import { type Call, type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { operationError } from "../operations/operation-errors.ts";
import { connectHost, type DriverForUri } from "./host-connect.ts";
import { hostAccessData } from "./host-store.ts";

/**
 * Reads from a host on a connection of its own: what API processes use for consoles and the like, whoever owns the
 * host. Throws DroverError: what the work threw, `host_unreachable`, `not_found`.
 */
export type HostReader = <T>(
  hostId: HostId,
  signal: AbortSignal,
  work: (host: HostConnection, call: Call) => Promise<T>,
) => Promise<T>;

export interface HostReaderDeps {
  readonly db: Database;
  readonly secretBox: SecretBox;
  readonly driverForUri: DriverForUri;
  readonly installationId: InstallationId;
}

const READ_TIMEOUT_MS = 20_000;
// A person who looks at a console looks again soon.
const KEEP_IDLE_MS = 30_000;

interface Kept {
  readonly connection: Promise<HostConnection>;
  readonly madeFrom: string;
  users: number;
  timer: NodeJS.Timeout | undefined;
}

/** A reader that keeps each connection for a while after its last use, and `close`, which ends them all. */
export function createHostReader(deps: HostReaderDeps): {
  readonly read: HostReader;
  close(): Promise<void>;
} {
  const kept = new Map<HostId, Kept>();

  function drop(hostId: HostId, entry: Kept): void {
    if (kept.get(hostId) === entry) kept.delete(hostId);
    clearTimeout(entry.timer);
    entry.connection.then((connection) => connection.close()).catch(() => undefined);
  }

  async function open(hostId: HostId): Promise<Kept> {
    const access = await hostAccessData(deps.db, hostId, deps.secretBox);
    if (access === null) throw new DroverError("not_found", "The host is no longer registered.");
    const madeFrom = JSON.stringify([access.uri, access.accelerator, access.credentials]);
    const present = kept.get(hostId);
    if (present?.madeFrom === madeFrom) return present;
    if (present !== undefined) drop(hostId, present);
    const signal = AbortSignal.timeout(READ_TIMEOUT_MS);
    const connection = connectHost(deps.driverForUri, access, deps.installationId, {
      signal,
      timeoutMs: READ_TIMEOUT_MS,
    });
    const entry: Kept = { connection, madeFrom, users: 0, timer: undefined };
    kept.set(hostId, entry);
    connection.then(
      (live) => {
        live.onClose(() => {
          drop(hostId, entry);
        });
      },
      () => {
        drop(hostId, entry);
      },
    );
    return entry;
  }

  const read: HostReader = async (hostId, signal, work) => {
    const entry = await open(hostId);
    clearTimeout(entry.timer);
    entry.users++;
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_TIMEOUT_MS)]);
      const call: Call = { signal: limit, timeoutMs: READ_TIMEOUT_MS, beforeSend: () => undefined };
      return await work(await entry.connection, call);
    } catch (error) {
      throw error instanceof HypervisorError ? operationError(error) : error;
    } finally {
      entry.users--;
      if (entry.users === 0)
        entry.timer = setTimeout(() => {
          drop(hostId, entry);
        }, KEEP_IDLE_MS).unref();
    }
  };
  return {
    read,
    async close() {
      const open = [...kept];
      for (const [hostId, entry] of open) drop(hostId, entry);
      await Promise.allSettled(open.map(([, entry]) => entry.connection));
    },
  };
}

import type { Readable } from "node:stream";
import type { Database } from "../db/client.ts";
import { type Call, type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { whenClosed } from "../lib/when-closed.ts";
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

/**
 * Opens a stream on such a connection, which is kept as long as the stream is open. `signal` bounds the opening. Throws
 * as HostReader.
 */
export type HostStreams = <Stream extends Readable>(
  hostId: HostId,
  signal: AbortSignal,
  open: (host: HostConnection, call: Call) => Promise<Stream>,
) => Promise<Stream>;

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
  readonly stream: HostStreams;
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

  function leave(hostId: HostId, entry: Kept): void {
    entry.users--;
    if (entry.users > 0) return;
    entry.timer = setTimeout(() => {
      drop(hostId, entry);
    }, KEEP_IDLE_MS).unref();
  }

  async function enter(hostId: HostId): Promise<Kept> {
    const entry = await open(hostId);
    clearTimeout(entry.timer);
    entry.users++;
    return entry;
  }

  const read: HostReader = async (hostId, signal, work) => {
    const entry = await enter(hostId);
    try {
      return await within(entry, signal, work);
    } finally {
      leave(hostId, entry);
    }
  };
  const stream: HostStreams = async (hostId, signal, openStream) => {
    const entry = await enter(hostId);
    try {
      const opened = await within(entry, signal, openStream);
      whenClosed(opened, () => {
        leave(hostId, entry);
      });
      return opened;
    } catch (error) {
      leave(hostId, entry);
      throw error;
    }
  };
  return {
    read,
    stream,
    async close() {
      const open = [...kept];
      for (const [hostId, entry] of open) drop(hostId, entry);
      await Promise.allSettled(open.map(([, entry]) => entry.connection));
    },
  };
}

/** Runs the work within its time, its errors as clients see them. */
async function within<T>(
  { connection }: Kept,
  signal: AbortSignal,
  work: (host: HostConnection, call: Call) => Promise<T>,
): Promise<T> {
  const limit = AbortSignal.timeout(READ_TIMEOUT_MS);
  try {
    const call: Call = {
      signal: AbortSignal.any([signal, limit]),
      timeoutMs: READ_TIMEOUT_MS,
      beforeSend: () => undefined,
    };
    return await work(await connection, call);
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    // Nobody but us ended the call: it is the host that was too slow.
    if (error.reason === "aborted" && limit.aborted && !signal.aborted) throw operationError(tooSlow(error));
    throw operationError(error);
  }
}

function tooSlow(cause: HypervisorError): HypervisorError {
  const message = `the host did not answer within ${READ_TIMEOUT_MS / 1000} seconds`;
  return new HypervisorError("unreachable", message, { cause });
}

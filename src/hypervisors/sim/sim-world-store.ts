import { Client, Pool, type PoolClient } from "pg";
import { messageOf } from "../../lib/errors.ts";
import { HypervisorError, type HypervisorErrorReason } from "../hypervisor.ts";
import { ensureSimSchema } from "./sim-schema-store.ts";

/** What the world tells about one host, pushed to every process that is connected to it. */
export type WorldNotice =
  | { readonly kind: "changed"; readonly uuid: string; readonly detail: string }
  /** All connections to the host end that were opened before its connections had been broken this often. */
  | { readonly kind: "broken"; readonly breaks: number }
  /** The world itself is gone. */
  | { readonly kind: "lost"; readonly error: HypervisorError };

/** One statement of the world; `name` makes it a prepared one. */
export interface WorldQuery {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** A call of one of the world's functions, each of which always takes the same number of arguments. */
export function functionQuery(fn: string, args: readonly unknown[]): WorldQuery {
  const places = args.map((_, index) => `$${index + 1}`).join(", ");
  return { name: `sim-${fn}`, text: `SELECT * FROM sim.${fn}(${places})`, values: args };
}

/** The simulated world as one process sees it: a small pool for all its hosts, and one connection that listens. */
export interface SimWorld {
  /**
   * Runs one statement. `beforeSend` is called in the same tick as the statement is written to the database; what it
   * throws is passed on, and nothing is sent. Failures of the database are `HypervisorError`s.
   */
  run<Row extends object>(query: WorldQuery, beforeSend: () => void): Promise<readonly Row[]>;
  /** The number of a host in the world; made where the world does not know it yet. */
  hostId(uri: string): Promise<number>;
  /** Writes down that a guest has stopped whose time to stop is over, and tells watchers. */
  settle(hostId: number, uuid: string): Promise<void>;
  /** True when the listening connection is gone, and with it the world: another one must be opened. */
  isLost(): boolean;
  /** Calls the listener for each notice about a host; once with `lost` when the world itself is gone. */
  subscribe(hostId: number, listener: (notice: WorldNotice) => void): () => void;
  /** Closes all connections. Never rejects. */
  close(): Promise<void>;
}

/** Connections of one process to the world. Calls wait for one, a call holds it for about a millisecond. */
const POOL_SIZE = 4;
/** Longer than calls wait for an answer, for it holds also where a call waits for its turn. */
const CONNECT_TIMEOUT_MS = 60_000;
const CHANNEL = "sim_event";
/**
 * The world commits without waiting for the disk. It stands in the same write-ahead log as the inventory, so what
 * the inventory has recorded, and waited for, implies that every effect before it has reached the disk too.
 */
const SETTINGS = "-c synchronous_commit=off";

/** Opens the world in a database, making its schema where there is none. */
export async function openSimWorld(databaseUrl: string): Promise<SimWorld> {
  const options = {
    connectionString: databaseUrl,
    application_name: "drover-sim",
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    options: SETTINGS,
  };
  const listener = new Client(options);
  const notices = listen(listener);
  try {
    await listener.connect();
    await ensureSimSchema(listener);
    await listener.query(`LISTEN ${CHANNEL}`);
  } catch (error) {
    await listener.end().catch(() => undefined);
    throw fromDatabase(error);
  }
  const pool = new Pool({ ...options, max: POOL_SIZE, allowExitOnIdle: true });
  // A broken idle connection is replaced by the pool; a broken listener ends the world, so nothing is missed.
  pool.on("error", () => undefined);
  // A connection's end can come in one packet with an answer, when the call still holds it and no query waits:
  // without a listener that would end the process.
  pool.on("connect", (client) => client.on("error", () => undefined));
  const ask = <Row extends object>(query: WorldQuery) => runOn<Row>(pool, query, () => undefined);
  return {
    run: (query, beforeSend) => runOn(pool, query, beforeSend),
    async hostId(uri) {
      const rows = await ask<{ id: number }>({
        name: "sim-host-id",
        text: "SELECT sim.host_id($1) AS id",
        values: [uri],
      });
      return rows[0]?.id ?? 0;
    },
    async settle(hostId, uuid) {
      await ask({ name: "sim-settle", text: "SELECT sim.settle_domain($1, $2)", values: [hostId, uuid] });
    },
    subscribe: notices.subscribe,
    isLost: notices.isOver,
    async close() {
      notices.silence();
      // A connection that is broken already has nothing left to end.
      await Promise.allSettled([pool.end(), listener.end()]);
    },
  };
}

async function runOn<Row extends object>(
  pool: Pool,
  query: WorldQuery,
  beforeSend: () => void,
): Promise<readonly Row[]> {
  let client: PoolClient;
  try {
    client = await pool.connect();
  } catch (error) {
    throw fromDatabase(error);
  }
  try {
    beforeSend();
  } catch (error) {
    client.release();
    throw error;
  }
  try {
    // An idle client writes the statement before this call returns: the same tick as beforeSend.
    const result = await client.query<Row & Record<string, unknown>>({ ...query, values: [...query.values] });
    client.release();
    return result.rows;
  } catch (error) {
    const failure = fromDatabase(error);
    client.release(failure.reason === "unreachable" ? failure : undefined);
    throw failure;
  }
}

function listen(client: Client) {
  const listeners = new Map<number, Set<(notice: WorldNotice) => void>>();
  let silent = false;
  const lose = (cause: unknown): void => {
    if (silent) return;
    silent = true;
    const error = new HypervisorError("unreachable", "the connection to the simulated world was lost", {
      cause,
    });
    for (const ofHost of [...listeners.values()])
      for (const listener of [...ofHost]) listener({ kind: "lost", error });
  };
  client.on("error", lose);
  client.on("end", () => {
    lose(new Error("the database closed the connection"));
  });
  client.on("notification", ({ payload = "" }) => {
    const [host = "", kind, about = "", detail = ""] = payload.split(" ");
    const notice: WorldNotice =
      kind === "changed" ? { kind, uuid: about, detail } : { kind: "broken", breaks: Number(about) };
    for (const listener of [...(listeners.get(Number(host)) ?? [])]) listener(notice);
  });
  return {
    subscribe: (hostId: number, listener: (notice: WorldNotice) => void): (() => void) => {
      const ofHost = listeners.get(hostId) ?? new Set();
      listeners.set(hostId, ofHost.add(listener));
      return () => {
        ofHost.delete(listener);
        if (ofHost.size === 0 && listeners.get(hostId) === ofHost) listeners.delete(hostId);
      };
    },
    silence: (): void => {
      silent = true;
    },
    isOver: (): boolean => silent,
  };
}

/** SQLSTATEs, by prefix, that mean something else than a failed call. */
const REASON_OF_SQLSTATE: readonly (readonly [string, HypervisorErrorReason])[] = [
  ["08", "unreachable"],
  ["57P", "unreachable"],
  ["53", "unreachable"],
  ["3D", "unreachable"],
  ["28", "unreachable"],
  ["40", "busy"],
  ["55P03", "busy"],
  ["23505", "already-exists"],
  ["22", "invalid-spec"],
  ["23514", "invalid-spec"],
];

/** Turns a failure of the database into one of the host: without an SQLSTATE, the connection itself failed. */
export function fromDatabase(error: unknown): HypervisorError {
  if (error instanceof HypervisorError) return error;
  const code =
    error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : null;
  const isSqlState = code !== null && /^[0-9A-Z]{5}$/.test(code);
  const known = isSqlState ? REASON_OF_SQLSTATE.find(([prefix]) => code.startsWith(prefix)) : undefined;
  const reason = known?.[1] ?? (isSqlState ? "failed" : "unreachable");
  return new HypervisorError(reason, `the simulated world: ${messageOf(error)}`, { cause: error });
}

import { PrismaPg } from "@prisma/adapter-pg";
import pg from "pg";
import type { Log } from "../lib/log.ts";
import { PrismaClient } from "./generated/client.ts";
import { type Db, runTransaction, type TransactionOptions, type Tx } from "./transaction.ts";

export type { Db, TransactionOptions, Tx } from "./transaction.ts";

/** The database of this process: queries outside transactions by itself, transactions, and its end. */
export type Database = Db & {
  /** See runTransaction. */
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * Breaks every connection: what waits on one is refused as unavailable at once, and new ones are made when needed.
   * For a server that is silent, which would keep everybody waiting for as long as it is.
   */
  breakConnections(): void;
  /** Waits for what is under way, then closes every connection. May be called twice. */
  close(): Promise<void>;
};

export interface DatabaseOptions {
  readonly url: string;
  readonly maxConnections: number;
  readonly logger: Log;
}

const CONNECT_TIMEOUT_MS = 5_000;

// A statement that waits for ever would keep its connection even after its transaction was given up; and a process that
// was frozen in a transaction must not hold its locks for longer than a worker's lease lasts (10 s). Sent as a
// statement, not as a start-up parameter, which PgBouncer refuses.
const SESSION_LIMITS =
  "SET statement_timeout = '30s'; SET lock_timeout = '15s'; SET idle_in_transaction_session_timeout = '8s'";

/**
 * Opens a pool of at most `maxConnections` connections, each made when first needed: an unreachable server is an
 * error of the first query (isDatabaseUnavailable), not of this call.
 */
export function createDatabase({ url, maxConnections, logger }: DatabaseOptions): Database {
  const connections = new Set<pg.ClientBase>();
  // The pool awaits this before it hands a new connection out, though its types promise less.
  const hooks = {
    onConnect: async (connection: pg.ClientBase): Promise<void> => {
      connections.add(connection);
      connection.once("end", () => connections.delete(connection));
      await connection.query(SESSION_LIMITS);
    },
  };
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    application_name: "drover",
    ...hooks,
  });
  // Without listeners a connection that breaks while idle would end the process.
  pool.on("error", (error) => {
    logger.warn({ error: error.message }, "an idle database connection broke; a new one is made when needed");
  });
  const adapter = new PrismaPg(pool, {
    disposeExternalPool: true,
    onConnectionError: (error) => {
      logger.warn({ error: error.message }, "a database connection broke in a transaction");
    },
  });
  const client = new PrismaClient({ adapter });
  let closing: Promise<void> | undefined;
  return Object.assign(client, {
    transaction: <T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions) =>
      runTransaction(client, work, options),
    breakConnections: () => {
      for (const connection of connections)
        if (connection instanceof pg.Client) connection.connection.stream.destroy();
    },
    close: () => (closing ??= client.$disconnect()),
  });
}

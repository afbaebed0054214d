import pg from "pg";
import { DroverError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";

const CONNECT_TIMEOUT_MS = 5_000;
// As long as clients wait for an answer: who waits longer has gone.
const MAX_WAIT_SECONDS = 30;

// A statement that waits for ever would keep its connection even after its transaction was given up; and a process that
// was frozen in a transaction must not hold its locks for longer than a worker's lease lasts (10 s). Sent as a
// statement, not as a start-up parameter, which PgBouncer refuses.
const SESSION_LIMITS =
  "SET statement_timeout = '30s'; SET lock_timeout = '15s'; SET idle_in_transaction_session_timeout = '8s'";

// The pool awaits this before it hands a new connection out, though its types promise less.
const limitSession = {
  onConnect: async (connection: pg.ClientBase): Promise<void> => {
    await connection.query(SESSION_LIMITS);
  },
};

/** A pool whose connections send statements as they come, without waiting for the answers to those before. */
export function createPool(url: string, maxConnections: number, logger: Log): pg.Pool {
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    pipeline: true,
    application_name: "drover",
    ...limitSession,
  });
  // Without listeners a connection that breaks would end the process, idle or not: whoever uses it learns it elsewhere.
  pool.on("error", (error) => {
    logger.warn({ error: error.message }, "an idle database connection broke; a new one is made when needed");
  });
  pool.on("connect", (connection) => {
    connection.on("error", () => undefined);
  });
  return pool;
}

/**
 * Gives connections of a pool in the order in which they are asked for. The pool's own queue would count the time in it
 * as time to connect, and refuse those who wait while the server is only busy.
 */
export class Connections {
  readonly #pool: pg.Pool;
  readonly #waiting = new Set<() => void>();
  readonly #open = new Set<pg.PoolClient>();
  #free: number;

  constructor(pool: pg.Pool, maxConnections: number) {
    this.#pool = pool;
    this.#free = maxConnections;
    pool.on("connect", (connection) => {
      this.#open.add(connection);
      connection.once("end", () => this.#open.delete(connection));
    });
  }

  /** Ends every connection at once, whatever waits for an answer on it. */
  breakAll(): void {
    for (const connection of this.#open)
      if (connection instanceof pg.Client) connection.connection.stream.destroy();
  }

  /**
   * A connection for the caller alone, until it is given back. Rejects with DroverError `unavailable` when none became
   * free for half a minute, and with pg's error when the server cannot be reached.
   */
  async take(): Promise<pg.PoolClient> {
    if (this.#free > 0) this.#free--;
    else await this.#turn();
    try {
      return await this.#pool.connect();
    } catch (error) {
      this.#next();
      throw error;
    }
  }

  /** One that broke, or whose state is unknown, is not used again. */
  giveBack(connection: pg.PoolClient, isBroken: boolean): void {
    connection.release(isBroken);
    this.#next();
  }

  #turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(go);
        const message = `The database had no free connection for ${MAX_WAIT_SECONDS} seconds. Nothing was changed; try again.`;
        reject(new DroverError("unavailable", message, { retryAfterSeconds: 1 }));
      }, MAX_WAIT_SECONDS * 1000);
      this.#waiting.add(go);
    });
  }

  /** The place goes to whoever waits longest. */
  #next(): void {
    const [first] = this.#waiting;
    if (first === undefined) this.#free++;
    else {
      this.#waiting.delete(first);
      first();
    }
  }
}

/** True for an error after which the connection can be used on: the server refused a statement and lives. */
export function isStatementError(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.severity !== "FATAL" && error.severity !== "PANIC";
}

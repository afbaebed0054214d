import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { DroverError } from "../lib/errors.ts";
import { type Connections, isStatementError } from "./connections.ts";
import { isSerializationConflict } from "./database-errors.ts";
import type { Prisma } from "./generated/client.ts";
import { type Sql, type Statement, sqlOver } from "./sql.ts";

export type { Sql } from "./sql.ts";

/** Prisma's models: for reading outside transactions. */
export type Models = Pick<
  Prisma.TransactionClient,
  Exclude<keyof Prisma.TransactionClient, `$${string}` | symbol>
>;

/** Statements and models, each by itself, outside any transaction. */
export type Db = Sql & Models;

declare const inTransaction: unique symbol;

/** A transaction under way. What must commit together with something else takes this, never `Sql`. */
export type Tx = Sql & { readonly [inTransaction]: true };

export interface TransactionOptions {
  /** Postgres' own default, `ReadCommitted`, without. */
  readonly isolationLevel?: "ReadCommitted" | "RepeatableRead" | "Serializable";
  /** Limit of one attempt, in seconds; 15 without. */
  readonly timeoutSeconds?: number;
  /** Attempts when a concurrent transaction wins (SQLSTATE 40001, 40P01), the first one included; 5 without. */
  readonly maxAttempts?: number;
}

const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 500;

// What a transaction sends looks rows up by key: one plan serves all values. Left to itself, the server plans most of it
// anew each time, for it cannot tell how long an array is to be.
const PLAN_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan";

const BEGIN = {
  ReadCommitted: `BEGIN; ${PLAN_ONCE}`,
  RepeatableRead: `BEGIN ISOLATION LEVEL REPEATABLE READ; ${PLAN_ONCE}`,
  Serializable: `BEGIN ISOLATION LEVEL SERIALIZABLE; ${PLAN_ONCE}`,
} as const;

/**
 * Runs `work` in one transaction and commits when it resolves. After a serialization failure or a deadlock it runs
 * again from its start, so `work` must have no effect outside the database.
 *
 * Rejects with what `work` or the database threw; with a DroverError `unavailable` when no connection was free or
 * the time was over, in both cases with nothing written.
 */
export async function runTransaction<T>(
  connections: Connections,
  work: (tx: Tx) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  const { isolationLevel = "ReadCommitted", timeoutSeconds = 15, maxAttempts = 5 } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      const transaction = new Transaction(connections, await connections.take());
      return await transaction.run(BEGIN[isolationLevel], work, timeoutSeconds);
    } catch (error) {
      if (!isSerializationConflict(error)) throw error;
      if (attempt >= maxAttempts) throw tooMuchContention(error, attempt);
      await sleep(pauseMs(attempt));
    }
  }
}

const ENDED = new Error("a statement was sent after its transaction had ended");

/** One attempt, on a connection that is its own until it ends. */
class Transaction {
  readonly #connections: Connections;
  readonly #connection: pg.PoolClient;
  /** Why no statement is taken any more; null while it is open. */
  #over: Error | null = null;
  #late: DroverError | null = null;

  constructor(connections: Connections, connection: pg.PoolClient) {
    this.#connections = connections;
    this.#connection = connection;
  }

  async run<T>(begin: string, work: (tx: Tx) => Promise<T>, timeoutSeconds: number): Promise<T> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      this.#late = tooSlow(timeoutSeconds);
      late.reject(this.#late);
    }, timeoutSeconds * 1000);
    try {
      // Not waited for: the first statement is sent behind it. Where it fails, the connection is gone, and all fails.
      const begun = this.#connection.query(begin);
      begun.catch((cause: unknown) => {
        this.#over ??= new Error("the transaction could not be begun", { cause });
      });
      const worked = Promise.resolve(work(sqlOver((statement) => this.#send(statement)) as Tx));
      const value = await Promise.race([worked, late.promise]);
      this.#over = ENDED;
      await begun;
      await this.#commit();
      return value;
    } catch (error) {
      this.#over = ENDED;
      const rolledBack = this.#rollBack();
      // A statement that is too slow is not waited for: no COMMIT was sent, so nothing will have been written.
      if (error !== this.#late) await rolledBack;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #send(statement: Statement): Promise<pg.QueryResult> {
    if (this.#over !== null) throw this.#over;
    return await this.#connection.query(statement);
  }

  async #commit(): Promise<void> {
    const { command } = await this.#connection.query("COMMIT");
    // Postgres' answer where a statement had failed before, and `work` went on as if it had not.
    if (command !== "COMMIT")
      throw new Error("the transaction was rolled back: a statement in it had failed");
    this.#connections.giveBack(this.#connection, false);
  }

  /** Behind whatever is still under way; the server's own limits see to it that this ends. */
  async #rollBack(): Promise<void> {
    let isBroken = false;
    try {
      await this.#connection.query("ROLLBACK");
    } catch {
      isBroken = true;
    }
    this.#connections.giveBack(this.#connection, isBroken);
  }
}

/** Sends one statement outside any transaction: it commits by itself. */
export async function sendAlone(connections: Connections, statement: Statement): Promise<pg.QueryResult> {
  const connection = await connections.take();
  let isBroken = false;
  try {
    return await connection.query(statement);
  } catch (error) {
    isBroken = !isStatementError(error);
    throw error;
  } finally {
    connections.giveBack(connection, isBroken);
  }
}

/** Doubles with each attempt; the jitter keeps those who collided from colliding again. */
function pauseMs(attempt: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
}

function tooSlow(timeoutSeconds: number): DroverError {
  const message = `The database did not finish within ${timeoutSeconds} seconds. Nothing was changed; try again.`;
  return new DroverError("unavailable", message, { retryAfterSeconds: 1 });
}

function tooMuchContention(cause: unknown, attempts: number): DroverError {
  const message = `Other changes to the same resources got in the way ${attempts} times. Nothing was changed; try again.`;
  return new DroverError("unavailable", message, {
    cause,
    retryAfterSeconds: 1,
  });
}

/** Resolves when the database answers; rejects with why not. */
export async function pingDatabase(db: Sql): Promise<void> {
  await db.$queryRaw`SELECT 1`;
}

import { setTimeout as sleep } from "node:timers/promises";
import { DroverError } from "../lib/errors.ts";
import { isSerializationConflict } from "./database-errors.ts";
import type { Prisma, PrismaClient } from "./generated/client.ts";
import { databaseFault } from "./sql-state.ts";

declare const inTransaction: unique symbol;

/** Anything that statements can be sent to: the models, `$queryRaw`, `$executeRaw`. In a transaction or not. */
export type Db = Prisma.TransactionClient;

/** A transaction under way. What must commit together with something else takes this, never `Db`. */
export type Tx = Db & { readonly [inTransaction]: true };

export interface TransactionOptions {
  /** Postgres' own default, `ReadCommitted`, without. */
  readonly isolationLevel?: "ReadCommitted" | "RepeatableRead" | "Serializable";
  /** Limit of one attempt, in seconds; 15 without. */
  readonly timeoutSeconds?: number;
  /** Attempts when a concurrent transaction wins (SQLSTATE 40001, 40P01), the first one included; 5 without. */
  readonly maxAttempts?: number;
}

// Waiting longer for a connection than a client waits for its answer helps nobody.
const MAX_WAIT_SECONDS = 10;
const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 500;

/**
 * Runs `work` in one transaction and commits when it resolves. After a serialization failure or a deadlock it runs
 * again from its start, so `work` must have no effect outside the database.
 *
 * Rejects with what `work` or the database threw; with a DroverError `unavailable` when no connection was free or
 * the time was over, in both cases with nothing written.
 */
export async function runTransaction<T>(
  client: PrismaClient,
  work: (tx: Tx) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  const { isolationLevel, timeoutSeconds = 15, maxAttempts = 5 } = options;
  const limits = {
    maxWait: MAX_WAIT_SECONDS * 1000,
    timeout: timeoutSeconds * 1000,
  };
  const settings = isolationLevel === undefined ? limits : { ...limits, isolationLevel };
  for (let attempt = 1; ; attempt++) {
    try {
      return await client.$transaction((tx) => work(tx as Tx), settings);
    } catch (error) {
      if (!isSerializationConflict(error)) throw timedOut(error, timeoutSeconds) ?? error;
      if (attempt >= maxAttempts) throw tooMuchContention(error, attempt);
      await sleep(pauseMs(attempt));
    }
  }
}

/** Doubles with each attempt; the jitter keeps those who collided from colliding again. */
function pauseMs(attempt: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/** Prisma's P2028 covers both waits; only its text tells them apart. */
function timedOut(error: unknown, timeoutSeconds: number): DroverError | null {
  const { codes, messages } = databaseFault(error);
  if (!codes.includes("P2028")) return null;
  const noConnection = messages.some((message) => message.includes("Unable to start a transaction"));
  const message = noConnection
    ? `The database had no free connection for ${MAX_WAIT_SECONDS} seconds. Nothing was changed; try again.`
    : `The database did not finish within ${timeoutSeconds} seconds. Nothing was changed; try again.`;
  return new DroverError("unavailable", message, {
    cause: error,
    retryAfterSeconds: 1,
  });
}

function tooMuchContention(cause: unknown, attempts: number): DroverError {
  const message = `Other changes to the same resources got in the way ${attempts} times. Nothing was changed; try again.`;
  return new DroverError("unavailable", message, {
    cause,
    retryAfterSeconds: 1,
  });
}

/** Resolves when the database answers; rejects with why not. */
export async function pingDatabase(db: Db): Promise<void> {
  await db.$queryRaw`SELECT 1`;
}

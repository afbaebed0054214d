import { databaseFault } from "./sql-state.ts";

/** The name of the unique constraint or index that a write violated; null when the error is about something else. */
export function uniqueViolation(error: unknown): string | null {
  const { sqlState, constraint } = databaseFault(error);
  return sqlState === "23505" ? (constraint ?? "") : null;
}

/**
 * The name of the foreign key that a write violated, or null: a row it names is gone, or a row to be deleted is
 * still in use. Postgres 18 reports the second as restrict_violation (23001), older servers as 23503.
 */
export function foreignKeyViolation(error: unknown): string | null {
  const { sqlState, constraint } = databaseFault(error);
  return sqlState === "23503" || sqlState === "23001" ? (constraint ?? "") : null;
}

/** The name of the exclusion constraint that a write violated, or null. */
export function exclusionViolation(error: unknown): string | null {
  const { sqlState, constraint } = databaseFault(error);
  return sqlState === "23P01" ? (constraint ?? "") : null;
}

/** True when the same transaction, run again from its start, may succeed: it lost against a concurrent one. */
export function isSerializationConflict(error: unknown): boolean {
  const { sqlState, codes } = databaseFault(error);
  return sqlState === "40001" || sqlState === "40P01" || codes.includes("P2034");
}

// Postgres: shutdown, crash and start-up; connection slots; read-only after a failover. And our own limits, see
// client.ts: on the wait for a lock, on a statement, on a process that stood still in a transaction.
const UNAVAILABLE_STATES = new Set([
  ...["57P01", "57P02", "57P03", "57P05", "53300", "25006"],
  ...["55P03", "57014", "25P03"],
]);

const UNAVAILABLE_CODES = new Set([
  // Prisma: unreachable, timed out, closed, no free connection, transaction not started in time.
  ...["P1001", "P1002", "P1008", "P1017", "P2024", "P2028", "P2037"],
  // The driver adapter's names for the same.
  ...["DatabaseNotReachable", "ConnectionClosed", "SocketTimeout", "TooManyConnections"],
  // The operating system: no listener, no socket file, broken or silent connections, no such name.
  ...[
    "ECONNREFUSED",
    "ENOENT",
    "ECONNRESET",
    "EPIPE",
    "ETIMEDOUT",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ENOTFOUND",
    "EAI_AGAIN",
  ],
]);

// pg gives these no code.
const UNAVAILABLE_MESSAGES =
  /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error)/;

/**
 * True when the database did not answer, or not in time: the API says 503, and the caller may try again. Errors of
 * other parts of the program are never meant, even where a host's broken connection is their cause.
 */
export function isDatabaseUnavailable(error: unknown): boolean {
  if (!(error instanceof Error) || !mayBeOfDatabase(error)) return false;
  const { sqlState, codes, messages } = databaseFault(error);
  if (sqlState !== null) return UNAVAILABLE_STATES.has(sqlState) || sqlState.startsWith("08");
  return (
    codes.some((code) => UNAVAILABLE_CODES.has(code)) ||
    messages.some((text) => UNAVAILABLE_MESSAGES.test(text))
  );
}

/** Prisma's errors by name; what pg throws when it cannot connect is a plain Error, which ours never are. */
function mayBeOfDatabase(error: Error): boolean {
  return /^(PrismaClient|DriverAdapterError|AggregateError$|Error$|error$)/.test(error.name);
}

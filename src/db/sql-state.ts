/**
 * What Postgres said, found in anything thrown by pg or by Prisma over its driver adapter: Prisma's known errors
 * carry the driver's error in `meta.driverAdapterError.cause`, raw pg errors carry `code` themselves.
 */
export interface DatabaseFault {
  /** Five characters, see Postgres' appendix A; null when the server said nothing. */
  readonly sqlState: string | null;
  /** Name of the violated constraint or unique index, where one was violated. */
  readonly constraint: string | null;
  /** Codes of Prisma (`P2028`) and of the operating system (`ECONNREFUSED`) met on the way. */
  readonly codes: readonly string[];
  readonly messages: readonly string[];
}

// A digit sets it apart from the operating system's codes such as EPIPE; Prisma's codes begin at P1000.
const SQL_STATE = /^(?=.*\d)(?!P[1-9])[0-9A-Z]{5}$/;
// Causes nest three deep in practice; the bound keeps a cycle from hanging the error path.
const MAX_DEPTH = 8;

/** Collects the facts from an error and its causes. Never throws, whatever it is given. */
export function databaseFault(error: unknown): DatabaseFault {
  const codes: string[] = [];
  const messages: string[] = [];
  let sqlState: string | null = null;
  let constraint: string | null = null;
  for (const layer of layersOf(error)) {
    for (const code of [layer["originalCode"], layer["code"], layer["kind"]]) {
      if (typeof code !== "string") continue;
      if (SQL_STATE.test(code)) sqlState ??= code;
      else codes.push(code);
    }
    constraint ??= constraintOf(layer["constraint"]);
    const message = layer["originalMessage"] ?? layer["message"];
    if (typeof message === "string") messages.push(message);
  }
  return { sqlState, constraint, codes, messages };
}

/** The SQLSTATE in an error, or null. */
export function sqlStateOf(error: unknown): string | null {
  return databaseFault(error).sqlState;
}

function* layersOf(error: unknown): Generator<Readonly<Record<string, unknown>>> {
  const queue: unknown[] = [error];
  for (let depth = 0; depth < MAX_DEPTH && queue.length > 0; depth++) {
    const layer = queue.shift();
    if (!isRecord(layer)) continue;
    yield layer;
    const meta = layer["meta"];
    if (isRecord(meta)) queue.push(meta["driverAdapterError"]);
    queue.push(layer["cause"]);
    // One error for each address tried.
    if (layer instanceof AggregateError) queue.push(layer.errors[0]);
  }
}

/** pg gives the name, the driver adapter wraps it as `{ index }`. */
function constraintOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (isRecord(value) && typeof value["index"] === "string") return value["index"];
  return null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

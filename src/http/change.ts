import type { Database, Tx } from "../db/client.ts";
import type { Clock } from "../lib/clock.ts";
import type { OperationId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import { etagOf } from "./etag.ts";
import { keyInProgress, keyReused } from "./idempotency.ts";
import { findAnswer, type KeyScope, lockKey, type StoredAnswer, saveAnswer } from "./idempotency-store.ts";

/**
 * One change: key, resource, operation, event and reservation in one transaction, then the answer. Routes reach it
 * through `api.change` in route.ts; uploads call it through `exchange.commit`.
 */

/** What http/ needs to know of operations; main.ts gives it. */
export interface OperationAnswers {
  /** The operation as the API shows it now. */
  read(id: OperationId): Promise<unknown>;
  /** Resolves when the operation has ended, the time is over or the signal aborts; never rejects for these. */
  waitForEnd(id: OperationId, timeoutSeconds: number, signal: AbortSignal): Promise<void>;
  /** Called after the commit of every change: a runner claims what was queued, the sequencer numbers events. */
  wake(): void;
}

export interface ChangeDeps {
  readonly database: Pick<Database, "transaction">;
  readonly operations: OperationAnswers;
  readonly clock: Clock;
}

/** What the work of a change answers, before the operation is read and the headers are made. */
export interface Outcome {
  readonly status: number;
  readonly body?: unknown;
  /** Becomes the ETag. */
  readonly generation?: number | undefined;
  readonly location?: string | undefined;
  /** Given instead of `body` when the request is repeated: without secrets. */
  readonly replayBody?: unknown;
  /** Status 202 only: the operation that was queued in the same transaction. */
  readonly operation?: OperationId | undefined;
}

/** An answer ready to be sent. */
export interface Outgoing {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

export interface ChangeRequest {
  /** Null: the client sent no Idempotency-Key. */
  readonly key: { readonly scope: KeyScope; readonly requestHash: Uint8Array } | null;
  readonly waitSeconds: number;
  /** Aborts when the client has gone: then nobody waits any more. */
  readonly signal: AbortSignal;
  /** Reads the resource of a 202 anew after the wait; null where it is gone. */
  readonly refresh:
    | ((body: unknown) => Promise<{ body: unknown; generation?: number | undefined } | null>)
    | null;
}

interface Committed {
  readonly answer: StoredOutcome;
  readonly replayed: boolean;
}

type StoredOutcome = Omit<StoredAnswer, "requestHash" | "body"> & { readonly body: unknown };

/**
 * Runs `work` in a transaction under the request's idempotency key and makes the answer. A DroverError thrown by
 * `work` rolls everything back, the key included. `work` may run more than once (serialization failures) and must
 * have no effect outside the database.
 */
export async function runChange(
  deps: ChangeDeps,
  request: ChangeRequest,
  work: (tx: Tx) => Promise<Outcome>,
): Promise<Outgoing> {
  const { answer, replayed } = await deps.database.transaction((tx) => commit(deps, request, work, tx));
  const headers = replayed ? { ...answer.headers, "idempotency-replayed": "true" } : answer.headers;
  if (!replayed) deps.operations.wake();
  if (answer.operationId === null) return { status: answer.status, headers, body: answer.body };
  return withOperation(deps, request, { ...answer, headers }, answer.operationId);
}

async function commit(
  deps: ChangeDeps,
  request: ChangeRequest,
  work: (tx: Tx) => Promise<Outcome>,
  tx: Tx,
): Promise<Committed> {
  const { key } = request;
  const now = deps.clock.now();
  if (key === null) return { answer: settle(await work(tx)), replayed: false };
  if (!(await lockKey(tx, key.scope))) throw keyInProgress();
  const stored = await findAnswer(tx, key.scope, now);
  if (stored !== null) {
    if (Buffer.compare(stored.requestHash, key.requestHash) !== 0) throw keyReused();
    return { answer: stored, replayed: true };
  }
  const outcome = await work(tx);
  const answer = settle(outcome);
  const kept = outcome.replayBody ?? outcome.body ?? null;
  await saveAnswer(tx, key.scope, { ...answer, body: asJson(kept), requestHash: key.requestHash }, now);
  return { answer, replayed: false };
}

/** Through JSON once, so that what is given again is what was given first. */
function asJson(body: unknown): JsonObject | null {
  return JSON.parse(JSON.stringify(body)) as JsonObject | null;
}

function settle(outcome: Outcome): StoredOutcome {
  const headers: Record<string, string> = {};
  if (outcome.generation !== undefined) headers["etag"] = etagOf(outcome.generation);
  if (outcome.operation !== undefined) headers["location"] = `/v1/operations/${outcome.operation}`;
  else if (outcome.location !== undefined) headers["location"] = outcome.location;
  return { status: outcome.status, headers, body: outcome.body, operationId: outcome.operation ?? null };
}

async function withOperation(
  deps: ChangeDeps,
  request: ChangeRequest,
  answer: Outgoing,
  id: OperationId,
): Promise<Outgoing> {
  const isWaiting = request.waitSeconds > 0;
  if (isWaiting) await deps.operations.waitForEnd(id, request.waitSeconds, request.signal);
  const [fresh, operation] = await Promise.all([
    isWaiting ? request.refresh?.(answer.body) : null,
    deps.operations.read(id),
  ]);
  const etag = fresh?.generation === undefined ? {} : { etag: etagOf(fresh.generation) };
  return {
    status: answer.status,
    headers: { ...answer.headers, ...etag },
    body: { ...((fresh?.body ?? answer.body) as object), operation },
  };
}

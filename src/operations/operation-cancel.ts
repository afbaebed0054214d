import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { operationEvents } from "../events/event-store.ts";
import { DroverError, toErrorBody } from "../lib/errors.ts";
import type { OperationId } from "../lib/ids.ts";
import { contextOf, endOperation, lockOperation, readSnapshot } from "./operation-end.ts";
import { deadlineSeconds, type KindRegistry, OVERTAKING_PRIORITY } from "./operation-kinds.ts";
import { lockSubjects } from "./operation-lanes.ts";
import { jsonParameter } from "./operation-sql.ts";
import { subjectsOf } from "./operation-subject-store.ts";

/**
 * `cancelled`: it had not begun, and has ended now. `asked`: its worker aborts what runs and undoes it.
 * `ended`: too late.
 */
export type CancelResult = "cancelled" | "asked" | "ended";

/**
 * Cancels an operation. Throws `not_found`, and `invalid_state` where it has begun and goes forward only. After the
 * commit, wake the workers: see `wakeAfterChange`.
 */
export async function cancelOperation(tx: Tx, kinds: KindRegistry, id: OperationId): Promise<CancelResult> {
  await lockSubjects(tx, await subjectsOf(tx, id));
  await lockOperation(tx, id);
  return await cancelUnfinished(
    tx,
    kinds,
    id,
    new DroverError("cancelled", "The operation was cancelled."),
    "request",
  );
}

/** Cancels an operation whose lanes and row are locked. What cannot be cancelled is left alone by an overtaker. */
export async function cancelUnfinished(
  tx: Tx,
  kinds: KindRegistry,
  id: OperationId,
  reason: DroverError,
  by: "request" | "overtake",
): Promise<CancelResult> {
  const now = await readSnapshot(tx, id);
  if (now === null || now.ended) return "ended";
  if (now.cancel_asked || now.undoing) return "asked";
  if (now.begun && now.forward_only) {
    if (by === "overtake") return "asked";
    const message = `The operation ${now.kind} has begun and cannot be taken back. Wait for its end.`;
    throw new DroverError("invalid_state", message);
  }
  if (now.begun || now.claimed) {
    await askToCancel(tx, id, reason);
    return "asked";
  }
  const ended = await endOperation(tx, kinds, contextOf(kinds, now), {
    outcome: { state: "cancelled", error: reason, undone: true },
    subjects: await subjectsOf(tx, id),
    claim: null,
  });
  return ended ? "cancelled" : "ended";
}

async function askToCancel(tx: Tx, id: OperationId, reason: DroverError): Promise<void> {
  await tx.$executeRaw`
    WITH o AS (
      UPDATE operation SET state = 'cancelling', cancel_reason = ${jsonParameter(toErrorBody(reason))},
        cancel_asked_at = clock_timestamp(), not_before = clock_timestamp(),
        priority = greatest(priority, ${OVERTAKING_PRIORITY}::int)
      WHERE id = ${id}::uuid RETURNING *)
    ${operationEvents("operation.cancelling", Prisma.sql`o`)}`;
}

/**
 * Queues an operation that needed `attention` again: it goes on where it stopped, with a new deadline and its
 * attempts counted anew. It has a new place in its lanes, behind what came in between. Throws `not_found`, and
 * `invalid_state` in any other state.
 */
export async function retryOperation(tx: Tx, kinds: KindRegistry, id: OperationId): Promise<void> {
  const subjects = await subjectsOf(tx, id);
  await lockSubjects(tx, subjects);
  await lockOperation(tx, id);
  const now = await readSnapshot(tx, id);
  if (now?.state !== "attention") {
    const message = `Only an operation in state "attention" can be tried again; this one is ${now?.state ?? "gone"}.`;
    throw new DroverError("invalid_state", message);
  }
  const context = contextOf(kinds, now);
  const seconds = deadlineSeconds(kinds.get(now.kind), context.input);
  await tx.$executeRaw`
    WITH drawn AS (SELECT nextval('operation_seq') AS seq),
    blocking AS (SELECT EXISTS (
      SELECT FROM operation_subject mine JOIN operation_subject b
        ON b.kind = mine.kind AND b.subject_id = mine.subject_id AND b.unfinished
      WHERE mine.operation_id = ${id}::uuid AND (mine.mode = 'exclusive' OR b.mode = 'exclusive')) AS yes),
    o AS (
      UPDATE operation SET seq = drawn.seq, turn = drawn.seq, ended_at = NULL, not_before = clock_timestamp(),
        state = CASE WHEN blocking.yes THEN 'blocked' ELSE 'pending' END,
        error = CASE WHEN undoing THEN error END,
        deadline = clock_timestamp() + make_interval(secs => ${seconds}::float8),
        undo_deadline = CASE WHEN undoing THEN clock_timestamp() + make_interval(secs => ${seconds}::float8) END
      FROM drawn, blocking WHERE id = ${id}::uuid RETURNING operation.*),
    lanes AS (
      UPDATE operation_subject l SET seq = o.seq, unfinished = true, active = o.state = 'pending'
      FROM o WHERE l.operation_id = o.id),
    steps AS (
      UPDATE operation_step s SET attempts = 0, undo_attempts = 0, undo_error = NULL,
        state = CASE WHEN s.state = 'failed' AND NOT o.undoing THEN 'running'
                     WHEN s.state = 'undoFailed' THEN 'undoing' ELSE s.state END
      FROM o WHERE s.operation_id = o.id AND s.state NOT IN ('succeeded', 'undone'))
    ${operationEvents("operation.retried", Prisma.sql`o`)}`;
}

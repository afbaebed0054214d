import type { Database } from "../db/client.ts";
import type { Db, Tx } from "../db/transaction.ts";
import { DroverError, type ErrorBody, messageOf, toErrorBody } from "../lib/errors.ts";
import { asId, type HostId, type OperationId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { Log } from "../lib/log.ts";
import {
  contextOf,
  dueTime,
  endOperation,
  lockOperation,
  type OperationSnapshot,
  readSnapshot,
} from "./operation-end.ts";
import { attentionError, deadlineError } from "./operation-errors.ts";
import { errorOf } from "./operation-finish.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { lockSubjects } from "./operation-lanes.ts";
import { promoteOverlooked } from "./operation-promote.ts";
import { jsonParameter } from "./operation-sql.ts";
import { subjectsOf } from "./operation-subject-store.ts";

/**
 * What nobody's run sees to: operations that wait past their deadline, whoever owns their host, and those that were
 * overlooked when their lane became free. Any worker does it, for all.
 */

const AT_ONCE = 50;

export interface Swept {
  readonly ended: number;
  readonly promoted: number;
}

export async function sweep(
  db: Database,
  kinds: KindRegistry,
  { undoSeconds, logger }: { readonly undoSeconds: number; readonly logger: Log },
): Promise<Swept> {
  let ended = 0;
  for (const id of await overdue(db, kinds.names)) {
    try {
      if (await db.transaction((tx) => endOverdue(tx, kinds, id, undoSeconds))) ended++;
    } catch (error) {
      logger.error(
        { operationId: id, error: messageOf(error) },
        "could not end an operation past its deadline",
      );
    }
  }
  return { ended, promoted: await promoteOverlooked(db, AT_ONCE) };
}

async function overdue(db: Db, kinds: readonly string[]): Promise<OperationId[]> {
  const rows = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM operation
    WHERE ended_at IS NULL AND token IS NULL AND kind = ANY(${[...kinds]}::text[])
      AND ${dueTime} < clock_timestamp()
    ORDER BY ${dueTime} LIMIT ${AT_ONCE}::int`;
  return rows.map(({ id }) => asId<OperationId>(id));
}

/** True when it has ended; false when somebody took it in between, or it has to be undone first. */
async function endOverdue(
  tx: Tx,
  kinds: KindRegistry,
  id: OperationId,
  undoSeconds: number,
): Promise<boolean> {
  const subjects = await subjectsOf(tx, id);
  await lockSubjects(tx, subjects);
  await lockOperation(tx, id);
  const now = await readSnapshot(tx, id);
  // Another worker's sweep may have been faster: what it turned around has time for its undo.
  if (now === null || now.ended || now.claimed || !now.overdue) return false;
  const context = contextOf(kinds, now);
  const late = waitError(now);
  if (!now.begun) {
    const outcome = { state: "failed", error: late, undone: true } as const;
    return await endOperation(tx, kinds, context, { outcome, subjects, claim: null });
  }
  if (now.undoing) {
    const original = errorOf(now.error as unknown as ErrorBody, late);
    const step = await markUndoFailed(tx, id, late);
    const outcome = {
      state: "attention",
      error: attentionError(original, step, late),
      undone: false,
    } as const;
    return await endOperation(tx, kinds, context, { outcome, subjects, claim: null, keptError: now.error });
  }
  if (now.forward_only) {
    const outcome = { state: "attention", error: late, undone: false } as const;
    return await endOperation(tx, kinds, context, { outcome, subjects, claim: null });
  }
  await tx.$executeRaw`
    WITH o AS (
      UPDATE operation SET undoing = true, error = ${jsonParameter(toErrorBody(late))}, not_before = clock_timestamp(),
        undo_deadline = clock_timestamp() + make_interval(secs => ${undoSeconds}::float8)
      WHERE id = ${id}::uuid RETURNING id)
    UPDATE operation_step s SET state = 'failed', error = coalesce(s.error, ${jsonParameter(toErrorBody(late))}),
      ended_at = clock_timestamp()
    FROM o WHERE s.operation_id = o.id AND s.state = 'running'`;
  return false;
}

/** Says what it waited for, where that is known. */
function waitError(now: OperationSnapshot): DroverError {
  const reason = now.wait_reason as { readonly message?: string } | null;
  const late = deadlineError(null);
  if (reason?.message === undefined) return late;
  return new DroverError(late.code, `${late.message} It waited because: ${reason.message}`, {
    cause: reason,
  });
}

async function markUndoFailed(tx: Tx, id: OperationId, error: DroverError): Promise<string> {
  const rows = await tx.$queryRaw<{ name: string }[]>`
    UPDATE operation_step s SET state = 'undoFailed', undo_error = ${jsonParameter(toErrorBody(error))},
      ended_at = clock_timestamp()
    WHERE s.operation_id = ${id}::uuid AND s.position = (
      SELECT max(l.position) FROM operation_step l WHERE l.operation_id = ${id}::uuid AND l.state <> 'undone')
    RETURNING s.name`;
  return rows[0]?.name ?? "";
}

/** Tells the clients of operations on hosts that do not answer why they wait. */
export async function noteSilentHosts(db: Db, hosts: readonly HostId[]): Promise<void> {
  const reason: JsonObject = {
    code: "host_unreachable",
    message: "The host does not answer. The operation goes on when it does, and is given up at its deadline.",
    retry: "temporary",
  };
  await db.$executeRaw`
    UPDATE operation SET wait_reason = ${jsonParameter(reason)}
    WHERE id IN (
      SELECT o.id FROM operation o
      WHERE o.host_id = ANY(${[...hosts]}::text[]::uuid[]) AND o.ended_at IS NULL AND o.token IS NULL
        AND o.state <> 'blocked' AND o.wait_reason IS NULL
      LIMIT 1000 FOR UPDATE SKIP LOCKED)`;
}

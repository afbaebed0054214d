import { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { insertEvents, operationEventRows } from "../events/event-store.ts";
import { toErrorBody } from "../lib/errors.ts";
import { asId, type OperationId, type ProjectId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { OperationContext, OperationOutcome, StepWrites, Subject } from "./operation-kind.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { promoteWaiting } from "./operation-promote.ts";
import { type Claim, jsonParameter, subjectRows, unclaimed, underClaim } from "./operation-sql.ts";

export interface Ending {
  readonly outcome: OperationOutcome;
  readonly result?: JsonObject | null;
  readonly subjects: readonly Subject[];
  /** The claim under which it ends; null: nobody has claimed it. */
  readonly claim: Claim | null;
  /** True leaves the kind's `onEnd` out, where that is what fails. */
  readonly withoutOnEnd?: boolean;
  /** What is written of its last steps in the same statement. */
  readonly steps?: StepWrites;
  /** What is kept as its error, where that is not the outcome's. */
  readonly keptError?: JsonObject | null;
}

/**
 * Ends an operation: its state, its lanes, its kind's `onEnd`, what waited behind it, and the event, in the
 * caller's transaction, with its lanes locked. False, with nothing written, when it has ended already or the
 * claim does not hold any more.
 */
export async function endOperation(
  tx: Tx,
  kinds: KindRegistry,
  operation: OperationContext<unknown>,
  { outcome, result, subjects, claim, steps, keptError, withoutOnEnd }: Ending,
): Promise<boolean> {
  const error = outcome.state === "succeeded" ? null : toErrorBody(outcome.error);
  const kept = keptError === undefined ? error : keptError;
  const condition =
    claim === null ? Prisma.sql`o.id = ${operation.id}::uuid AND o.token IS NULL` : underClaim(claim);
  const data = Prisma.sql`jsonb_build_object('error', ${jsonParameter(error)})`;
  const told = operationEventRows(`operation.${outcome.state}`, Prisma.sql`o`, data);
  const parts = [
    ...(steps?.parts ?? []),
    Prisma.sql`lanes AS (
      UPDATE operation_subject l SET unfinished = false, active = false FROM o WHERE l.operation_id = o.id)`,
    Prisma.sql`told AS (${insertEvents([...(steps?.events ?? []), told])})`,
  ];
  // The lanes are locked: what waits in them now is all that can.
  const [ended] = await tx.$queryRaw<{ waited: boolean }[]>`
    WITH o AS (
      UPDATE operation o SET state = ${outcome.state}, error = ${jsonParameter(kept)}, result = ${jsonParameter(result)},
        ended_at = clock_timestamp(), wait_reason = NULL, ${unclaimed}
      WHERE ${condition} AND o.ended_at IS NULL
      RETURNING o.*),
    ${Prisma.join(parts, ", ")}
    SELECT EXISTS (
      SELECT FROM ${subjectRows(subjects)} JOIN operation_subject w
        ON w.kind = s.kind AND w.subject_id = s.subject_id AND w.unfinished AND NOT w.active) AS waited
    FROM o`;
  if (ended === undefined) return false;
  if (withoutOnEnd !== true) await kinds.get(operation.kind).onEnd?.(tx, operation, outcome);
  if (ended.waited) await promoteWaiting(tx, subjects);
  return true;
}

/** A row of an operation as its kind's functions see it; the input as its schema parses it. */
export function contextOf(
  kinds: KindRegistry,
  row: {
    readonly id: string;
    readonly kind: string;
    readonly project_id: string | null;
    readonly input: unknown;
  },
): OperationContext<unknown> {
  return {
    id: asId<OperationId>(row.id),
    kind: row.kind,
    projectId: row.project_id === null ? null : asId<ProjectId>(row.project_id),
    input: kinds.get(row.kind).input.parse(row.input),
  };
}

/** What is needed to end, cancel or retry an operation from outside its run. */
export interface OperationSnapshot {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly project_id: string | null;
  readonly input: unknown;
  readonly forward_only: boolean;
  readonly undoing: boolean;
  readonly cancel_asked: boolean;
  readonly claimed: boolean;
  readonly begun: boolean;
  readonly ended: boolean;
  /** Past its deadline, or past that of its undo. */
  readonly overdue: boolean;
  readonly error: JsonObject | null;
  readonly wait_reason: JsonObject | null;
}

/** When an operation is over that nobody runs. */
export const dueTime = Prisma.sql`CASE WHEN undoing THEN undo_deadline ELSE deadline END`;

/** Locks the row of an operation until the end of the transaction, after its lanes. */
export async function lockOperation(tx: Tx, id: OperationId): Promise<void> {
  await tx.$queryRaw`SELECT id FROM operation WHERE id = ${id}::uuid FOR UPDATE`;
}

/** Reads what a locked operation is like now: in a statement after the lock, so that it sees the steps too. */
export async function readSnapshot(db: Sql, id: OperationId): Promise<OperationSnapshot | null> {
  const rows = await db.$queryRaw<OperationSnapshot[]>`
    SELECT id, kind, state, project_id, input, forward_only, undoing, cancel_asked_at IS NOT NULL AS cancel_asked,
           token IS NOT NULL AS claimed, ended_at IS NOT NULL AS ended, error, wait_reason,
           coalesce(${dueTime} < clock_timestamp(), false) AS overdue,
           EXISTS (SELECT FROM operation_step s WHERE s.operation_id = o.id) AS begun
    FROM operation o WHERE id = ${id}::uuid`;
  return rows[0] ?? null;
}

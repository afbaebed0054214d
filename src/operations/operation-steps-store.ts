import { Prisma } from "../db/generated/client.ts";
import type { Sql } from "../db/transaction.ts";
import { insertEvents, operationEventRows } from "../events/event-store.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { HostId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import { Fenced } from "./operation-errors.ts";
import type { StepWrites } from "./operation-kind.ts";
import { type Claim, jsonParameter, unclaimed, underClaim } from "./operation-sql.ts";

/**
 * What a run writes down, one statement each. Each statement checks the claim, and locks the operation's row until
 * its transaction ends, so that a takeover comes before it or after it. One that hits no row throws `Fenced`.
 */

function claimedRow(claim: Claim): Prisma.Sql {
  return Prisma.sql`SELECT o.* FROM operation o WHERE ${underClaim(claim)} FOR NO KEY UPDATE OF o`;
}

/** Proves the claim for what follows in the same transaction. */
export async function assertClaim(db: Sql, claim: Claim): Promise<void> {
  const rows = await db.$queryRaw<{ id: string }[]>`SELECT c.id FROM (${claimedRow(claim)}) AS c`;
  if (rows.length === 0) throw new Fenced();
}

export interface StepName {
  readonly position: number;
  readonly name: string;
}

/** A step that is done. */
export interface DoneStep {
  readonly position: number;
  readonly result: JsonObject | undefined;
  readonly writes?: StepWrites | undefined;
}

export interface Advance {
  readonly done?: DoneStep | undefined;
  /** Steps that are left out. */
  readonly skipped: readonly StepName[];
  /**
   * The step that begins now. On another host than the operation's the claim is given up instead, so that the owner of
   * that host goes on.
   */
  readonly begin?: StepName & {
    readonly host: HostId | null | { readonly subquery: Prisma.Sql };
  };
}

export interface Advanced {
  /** It was asked to cancel, and why: then nothing began. */
  readonly cancelReason: ErrorBody | null;
  /** The step that was to begin is another host's. */
  readonly moved: boolean;
  readonly begun: {
    readonly attempts: number;
    readonly found: JsonObject | null;
    readonly hostId: HostId | null;
  } | null;
}

interface AdvancedRow {
  readonly cancel_reason: ErrorBody | null;
  readonly attempts: number | null;
  readonly found: JsonObject | null;
  readonly host_id: HostId | null;
  readonly moved: boolean;
}

/** Records that a step is done and that the next one begins, or where it goes on, in one statement. */
export async function advance(db: Sql, claim: Claim, { done, skipped, begin }: Advance): Promise<Advanced> {
  const finished = stepWrites({ done, skipped });
  const parts = [Prisma.sql`o AS (${claimedRow(claim)})`, ...finished.parts];
  if (finished.events.length > 0) parts.push(Prisma.sql`told AS (${insertEvents(finished.events)})`);
  if (begin !== undefined) parts.push(...beginParts(begin));
  const outcome =
    begin === undefined
      ? Prisma.sql`NULL::int AS attempts, NULL::jsonb AS found, NULL::uuid AS host_id, false AS moved FROM o`
      : Prisma.sql`begun.attempts, begun.found, place.host_id, place.moves AS moved
          FROM o CROSS JOIN place LEFT JOIN begun ON true`;
  const rows = await db.$queryRaw<AdvancedRow[]>`
    WITH ${Prisma.join(parts, ", ")} SELECT o.cancel_reason, ${outcome}`;
  const row = rows[0];
  if (row === undefined) throw new Fenced();
  const { attempts, found, host_id: hostId } = row;
  return {
    cancelReason: row.cancel_reason,
    moved: row.moved,
    begun: attempts === null ? null : { attempts, found, hostId },
  };
}

/** What is written of steps that are over, as parts of a statement whose `o` is their operation under its claim. */
export function stepWrites({ done, skipped }: Pick<Advance, "done" | "skipped">): StepWrites {
  const over = done === undefined ? { parts: [], events: [] } : doneWrites(done);
  if (skipped.length === 0) return over;
  const left = Prisma.sql`skipped AS (
    INSERT INTO operation_step (operation_id, position, name, state, attempts, started_at, ended_at)
    SELECT o.id, k.position, k.name, 'succeeded', 0, clock_timestamp(), clock_timestamp()
    FROM o, unnest(${skipped.map((s) => s.position)}::int[], ${skipped.map((s) => s.name)}::text[]) AS k(position, name)
    ON CONFLICT (operation_id, position) DO NOTHING)`;
  return { parts: [...over.parts, left], events: over.events };
}

function doneWrites({ position, result, writes }: DoneStep): StepWrites {
  const data = Prisma.sql`jsonb_build_object('step', done.name, 'position', done.position, 'total', o.steps_total)`;
  const succeeded = operationEventRows("operation.stepSucceeded", Prisma.sql`o, done`, data);
  const part = Prisma.sql`done AS (
    UPDATE operation_step s SET state = 'succeeded', result = ${jsonParameter(result)}, error = NULL,
      progress = s.progress || jsonb_build_object('done', s.progress->'total'),
      ended_at = clock_timestamp()
    FROM o WHERE s.operation_id = o.id AND s.position = ${position}::int AND s.state <> 'succeeded'
    RETURNING s.name, s.position)`;
  return {
    parts: [part, ...(writes?.parts ?? [])],
    events: [succeeded, ...(writes?.events ?? [])],
  };
}

function beginParts({ position, name, host }: NonNullable<Advance["begin"]>): Prisma.Sql[] {
  const hostId = typeof host === "object" && host !== null ? host.subquery : Prisma.sql`${host}`;
  return [
    Prisma.sql`place AS (
      SELECT w.host_id, w.host_id IS NOT NULL AND w.host_id IS DISTINCT FROM o.host_id AS moves
      FROM o, (SELECT (${hostId})::uuid AS host_id) AS w)`,
    Prisma.sql`begun AS (
      INSERT INTO operation_step AS s (operation_id, position, name, state, attempts, host_id, started_at)
      SELECT o.id, ${position}::int, ${name}, 'running', 1, place.host_id, clock_timestamp()
      FROM o, place WHERE o.cancel_asked_at IS NULL AND NOT place.moves
      ON CONFLICT (operation_id, position) DO UPDATE
        SET state = 'running', attempts = s.attempts + 1, host_id = excluded.host_id, ended_at = NULL
      RETURNING s.attempts, s.found)`,
    Prisma.sql`moved AS (
      UPDATE operation m SET host_id = place.host_id, attempt = m.attempt - 1, not_before = clock_timestamp(),
        ${unclaimed}
      FROM o, place WHERE m.id = o.id AND place.moves)`,
  ];
}

/** Records what a step found before it acts. */
export async function recordFound(db: Sql, claim: Claim, position: number, found: JsonObject): Promise<void> {
  await updateStep(db, claim, position, Prisma.sql`found = ${jsonParameter(found)}`);
}

/** Records how far a long step has come. */
export async function recordProgress(
  db: Sql,
  claim: Claim,
  position: number,
  progress: JsonObject,
): Promise<void> {
  await updateStep(db, claim, position, Prisma.sql`progress = ${jsonParameter(progress)}`);
}

/** Records that a step is being undone. */
export async function beginUndo(db: Sql, claim: Claim, position: number): Promise<void> {
  const change = Prisma.sql`state = 'undoing', undo_attempts = s.undo_attempts + 1`;
  await updateStep(db, claim, position, change);
}

/** Records that a step is undone. */
export async function recordUndone(db: Sql, claim: Claim, position: number): Promise<void> {
  const change = Prisma.sql`state = 'undone', undo_error = NULL, ended_at = clock_timestamp()`;
  await updateStep(db, claim, position, change);
}

/** Records that the undo of a step failed for good, or its failure where nothing is undone. */
export async function recordStepFailure(
  db: Sql,
  claim: Claim,
  position: number,
  failure: { readonly undo: boolean; readonly error: ErrorBody },
): Promise<void> {
  const error = jsonParameter(failure.error);
  const change = failure.undo
    ? Prisma.sql`state = 'undoFailed', undo_error = ${error}, ended_at = clock_timestamp()`
    : Prisma.sql`state = 'failed', error = ${error}, ended_at = clock_timestamp()`;
  await updateStep(db, claim, position, change);
}

/** Records the decision to undo, before the first undo: from then on the operation only goes back. */
export async function decideUndo(
  db: Sql,
  claim: Claim,
  decision: {
    readonly failedPosition: number | null;
    readonly error: ErrorBody;
    readonly undoSeconds: number;
  },
): Promise<void> {
  const error = jsonParameter(decision.error);
  const rows = await db.$queryRaw<{ id: string }[]>`
    WITH o AS (
      UPDATE operation o SET undoing = true, error = ${error},
        undo_deadline = clock_timestamp() + make_interval(secs => ${decision.undoSeconds}::float8)
      WHERE ${underClaim(claim)} RETURNING o.id),
    failed AS (
      UPDATE operation_step s SET state = 'failed', error = ${error}, ended_at = clock_timestamp()
      FROM o WHERE s.operation_id = o.id AND s.position = ${decision.failedPosition}::int AND s.state = 'running')
    SELECT id FROM o`;
  if (rows.length === 0) throw new Fenced();
}

export interface Release {
  /** How long nobody shall take it again. */
  readonly pauseMs: number;
  /** Why it waits, for the client. */
  readonly waitReason: ErrorBody | null;
  /** False gives the attempt back: nothing was tried. */
  readonly countsAsAttempt: boolean;
  /** The step that was under way, and what went wrong with it. */
  readonly step: {
    readonly position: number;
    readonly undo: boolean;
    readonly error: ErrorBody | null;
  } | null;
  /** The host whose owner is to go on, where that changes. */
  readonly moveTo?: { readonly hostId: HostId | null };
}

/** Gives the claim up: the operation waits in the database, and is taken again when its pause is over. */
export async function release(
  db: Sql,
  claim: Claim,
  { pauseMs, waitReason, countsAsAttempt, step, moveTo }: Release,
): Promise<void> {
  const back = countsAsAttempt ? 0 : 1;
  const error = jsonParameter(step?.error);
  const host = moveTo === undefined ? Prisma.sql`o.host_id` : Prisma.sql`${moveTo.hostId}::uuid`;
  const rows = await db.$queryRaw<{ id: string }[]>`
    WITH o AS (
      UPDATE operation o SET ${unclaimed}, wait_reason = ${jsonParameter(waitReason)}, host_id = ${host},
        not_before = clock_timestamp() + make_interval(secs => ${pauseMs / 1000}::float8), attempt = o.attempt - ${back}::int,
        state = CASE WHEN o.state = 'running' AND NOT EXISTS (
          SELECT FROM operation_step b WHERE b.operation_id = o.id) THEN 'pending' ELSE o.state END
      WHERE ${underClaim(claim)} RETURNING o.id),
    given_back AS (
      UPDATE operation_step s SET
        attempts = greatest(0, s.attempts - CASE WHEN ${step?.undo ?? false} THEN 0 ELSE ${back}::int END),
        undo_attempts = greatest(0, s.undo_attempts - CASE WHEN ${step?.undo ?? false} THEN ${back}::int ELSE 0 END),
        error = CASE WHEN ${step?.undo ?? false} THEN s.error ELSE coalesce(${error}, s.error) END,
        undo_error = CASE WHEN ${step?.undo ?? false} THEN coalesce(${error}, s.undo_error) ELSE s.undo_error END
      FROM o WHERE s.operation_id = o.id AND s.position = ${step?.position ?? null}::int)
    SELECT id FROM o`;
  if (rows.length === 0) throw new Fenced();
}

async function updateStep(db: Sql, claim: Claim, position: number, change: Prisma.Sql): Promise<void> {
  const rows = await db.$queryRaw<{ position: number }[]>`
    WITH o AS (${claimedRow(claim)})
    UPDATE operation_step s SET ${change} FROM o
    WHERE s.operation_id = o.id AND s.position = ${position}::int RETURNING s.position`;
  if (rows.length === 0) throw new Fenced();
}

import { Prisma } from "../db/generated/client.ts";
import type { Sql } from "../db/transaction.ts";
import type { PageWindow } from "../http/pagination.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { OperationId, ProjectId } from "../lib/ids.ts";
import type { OperationView } from "./operation-schemas.ts";
import { isEnded, type OperationState } from "./operation-state.ts";

/** Reading operations for the API. */

export interface OperationFilter {
  /** null: every project and what belongs to none. */
  readonly projectId?: ProjectId | null;
  readonly states?: readonly OperationState[];
  readonly kinds?: readonly string[];
  /** The id of anything that it works on. */
  readonly targetId?: string;
  /** Name of a host that it touches. */
  readonly host?: string;
  /** Created at or after. */
  readonly since?: Date;
}

/** With the project that it belongs to, for access; null: none. */
export interface FoundOperation {
  readonly projectId: ProjectId | null;
  readonly view: OperationView;
}

/** One operation; null when there is none (any more). */
export async function getOperation(db: Sql, id: OperationId): Promise<FoundOperation | null> {
  const [row] = await select(db, Prisma.sql`o.id = ${id}::uuid`, 1);
  return row === undefined ? null : { projectId: row.project_id, view: toView(row) };
}

/**
 * A page of operations, the newest first. The page's key is `createdAt` (RFC 3339) and the id: see
 * `operationPageKey`.
 */
export async function listOperations(
  db: Sql,
  filter: OperationFilter,
  { after, limit }: PageWindow,
): Promise<OperationView[]> {
  const conditions = [matching(filter)];
  if (after !== null)
    conditions.push(
      Prisma.sql`(o.created_at, o.id) < (${String(after.value)}::timestamptz, ${after.id}::uuid)`,
    );
  return (await select(db, Prisma.join(conditions, " AND "), limit)).map(toView);
}

/** Where a page that ends with this operation goes on. */
export function operationPageKey(view: OperationView): { readonly value: string; readonly id: string } {
  return { value: view.createdAt, id: view.id };
}

function matching({ projectId, states, kinds, targetId, host, since }: OperationFilter): Prisma.Sql {
  const parts = [Prisma.sql`true`];
  if (projectId !== undefined && projectId !== null)
    parts.push(Prisma.sql`o.project_id = ${projectId}::uuid`);
  if (states !== undefined && states.length > 0)
    parts.push(Prisma.sql`o.state = ANY(${[...states]}::text[])`);
  if (kinds !== undefined && kinds.length > 0) parts.push(Prisma.sql`o.kind = ANY(${[...kinds]}::text[])`);
  if (targetId !== undefined)
    parts.push(
      Prisma.sql`o.id IN (SELECT t.operation_id FROM operation_subject t WHERE t.subject_id = ${targetId}::uuid)`,
    );
  if (host !== undefined) parts.push(Prisma.sql`o.hosts @> ${JSON.stringify([host])}::jsonb`);
  if (since !== undefined) parts.push(Prisma.sql`o.created_at >= ${since.toISOString()}::timestamptz`);
  return Prisma.join(parts, " AND ");
}

interface StepJson {
  readonly name: string;
  readonly state: OperationView["steps"][number]["state"];
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly attempts: number;
  readonly progress: OperationView["steps"][number]["progress"];
  readonly error: ErrorBody | null;
  readonly undoError: ErrorBody | null;
}

interface ViewRow {
  readonly id: string;
  readonly project_id: ProjectId | null;
  readonly kind: string;
  readonly state: OperationState;
  readonly targets: OperationView["targets"];
  readonly hosts: string[];
  readonly blocked_by: string[];
  readonly wait_reason: ErrorBody | null;
  readonly attempt: number;
  readonly steps: StepJson[];
  readonly steps_total: number;
  readonly undoing: boolean;
  readonly forward_only: boolean;
  readonly deadline: Date;
  readonly error: ErrorBody | null;
  readonly result: Record<string, unknown> | null;
  readonly created_at: Date;
  readonly started_at: Date | null;
  readonly ended_at: Date | null;
  readonly request_id: string | null;
  readonly actor: string;
}

async function select(db: Sql, condition: Prisma.Sql, limit: number): Promise<ViewRow[]> {
  return await db.$queryRaw<ViewRow[]>`
    SELECT o.id, o.project_id, o.kind, o.state, o.targets, o.hosts, o.wait_reason, o.attempt, o.steps_total, o.undoing,
      o.forward_only, o.deadline, o.error, o.result, o.created_at, o.started_at, o.ended_at, o.request_id, o.actor,
      CASE WHEN o.state <> 'blocked' THEN '[]'::jsonb ELSE coalesce((
        SELECT jsonb_agg(b.operation_id ORDER BY b.seq) FROM (
          SELECT b.operation_id, min(b.seq) AS seq
          FROM operation_subject mine JOIN operation_subject b
            ON b.kind = mine.kind AND b.subject_id = mine.subject_id AND b.unfinished AND b.seq < mine.seq
          WHERE mine.operation_id = o.id AND (mine.mode = 'exclusive' OR b.mode = 'exclusive')
          GROUP BY b.operation_id ORDER BY seq LIMIT 10) b), '[]') END AS blocked_by,
      coalesce((
        SELECT jsonb_agg(jsonb_build_object('name', s.name, 'state', s.state, 'attempts', s.attempts,
          'startedAt', floor(extract(epoch FROM s.started_at) * 1000), 'endedAt', floor(extract(epoch FROM s.ended_at) * 1000),
          'progress', s.progress, 'error', s.error, 'undoError', s.undo_error) ORDER BY s.position)
        FROM operation_step s WHERE s.operation_id = o.id), '[]') AS steps
    FROM operation o WHERE ${condition} ORDER BY o.created_at DESC, o.id DESC LIMIT ${limit}::int`;
}

function toView(row: ViewRow): OperationView {
  const begun = row.steps.length > 0;
  return {
    id: row.id,
    kind: row.kind,
    state: row.state,
    targets: row.targets,
    hosts: row.hosts,
    blockedBy: row.blocked_by,
    waitReason: row.wait_reason,
    attempt: row.attempt,
    steps: row.steps.map(toStep),
    progress: { done: row.steps.filter((step) => step.state === "succeeded").length, total: row.steps_total },
    cancellable:
      !isEnded(row.state) && row.state !== "cancelling" && !row.undoing && !(row.forward_only && begun),
    deadline: row.deadline.toISOString(),
    error: errorToShow(row),
    result: row.result,
    createdAt: row.created_at.toISOString(),
    startedAt: row.started_at?.toISOString() ?? null,
    endedAt: row.ended_at?.toISOString() ?? null,
    requestId: row.request_id,
    actor: row.actor,
  };
}

/** Why it failed, and where it needs attention, which undo failed: the operation's own error is kept as it was. */
function errorToShow({ error, state, steps }: ViewRow): ErrorBody | null {
  const failed = steps.find((step) => step.state === "undoFailed");
  if (state !== "attention" || error === null || failed === undefined || failed.undoError === null)
    return error;
  return {
    ...error,
    message: `${error.message} Undoing the step "${failed.name}" failed too: ${failed.undoError.message}`,
  };
}

function toStep(step: StepJson): OperationView["steps"][number] {
  return {
    name: step.name,
    state: step.state,
    startedAt: new Date(step.startedAt).toISOString(),
    endedAt: step.endedAt === null ? null : new Date(step.endedAt).toISOString(),
    attempts: step.attempts,
    progress: step.progress,
    error: step.undoError ?? step.error,
  };
}

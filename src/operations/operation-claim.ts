import { Prisma } from "../db/generated/client.ts";
import type { Sql } from "../db/transaction.ts";
import { operationEvents } from "../events/event-store.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { HostId, WorkerId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { Subject } from "./operation-kind.ts";
import { jsonParameter } from "./operation-sql.ts";
import type { OperationState, StepState } from "./operation-state.ts";

/** A step as it is recorded. */
export interface RecordedStep {
  readonly position: number;
  readonly name: string;
  readonly state: StepState;
  /** 0 for one that was left out. */
  readonly attempts: number;
  readonly undoAttempts: number;
  readonly hostId: HostId | null;
  readonly found: JsonObject | null;
  readonly result: JsonObject | null;
}

/** An operation that this worker has taken, with all that its run needs. */
export interface ClaimedOperation {
  readonly id: string;
  readonly kind: string;
  readonly state: OperationState;
  readonly project_id: string | null;
  readonly input: unknown;
  readonly token: string;
  readonly host_id: string | null;
  readonly epoch: bigint | null;
  readonly attempt: number;
  readonly forward_only: boolean;
  readonly undoing: boolean;
  readonly error: ErrorBody | null;
  readonly cancel_reason: ErrorBody | null;
  /** Milliseconds left by the database's clock; negative when it is over. */
  readonly deadline_ms: number;
  readonly undo_deadline_ms: number | null;
  readonly steps: readonly RecordedStep[];
  readonly subjects: readonly Subject[];
}

/** A host of which operations may be taken now, and how many. */
export interface ClaimableHost {
  readonly id: HostId;
  readonly epoch: bigint;
  readonly free: number;
}

export interface ClaimRequest {
  readonly workerId: WorkerId;
  readonly hosts: readonly ClaimableHost[];
  /** How many operations that are on no host may be taken. */
  readonly freeWithoutHost: number;
  /** How many may be taken altogether. */
  readonly free: number;
  readonly kinds: readonly string[];
  /** Of these kinds only what goes back is taken: an undo does not wait for heavy work. */
  readonly onlyUndoing: readonly string[];
}

const claimable = Prisma.sql`o.ended_at IS NULL AND o.token IS NULL AND o.state <> 'blocked'`;

/**
 * Takes operations whose turn has come: of hosts that this worker owns under the given epoch, and of no host. Each
 * host gives its first ones before any host gives its second, and within a host the order is priority, then turn.
 *
 * An operation that is not `blocked` has no earlier unfinished one that it conflicts with: see enqueue and promote.
 * The candidates are picked without locks, then locked where nobody else did, and looked at again.
 */
export async function claimOperations(db: Sql, request: ClaimRequest): Promise<ClaimedOperation[]> {
  const { workerId, hosts, freeWithoutHost, free, kinds, onlyUndoing } = request;
  if (free <= 0) return [];
  const mayGo = Prisma.sql`(o.kind <> ALL(${[...onlyUndoing]}::text[]) OR o.undoing OR o.state = 'cancelling')`;
  const due = Prisma.sql`${claimable} AND o.not_before <= clock_timestamp() AND o.kind = ANY(${[...kinds]}::text[])
    AND ${mayGo}`;
  const places = hosts.map((host) => ({ host_id: host.id, epoch: host.epoch.toString(), free: host.free }));
  const rows = await db.$queryRaw<ClaimedOperation[]>`
    WITH RECURSIVE me AS (
      SELECT w.id FROM worker w WHERE w.id = ${workerId}::uuid AND w.lease_expires_at > clock_timestamp()),
    -- The hosts that have work, found by jumping through the index instead of asking a thousand idle ones.
    busy(host_id) AS (
      (SELECT o.host_id FROM operation o WHERE ${claimable} AND o.host_id IS NOT NULL ORDER BY o.host_id LIMIT 1)
      UNION ALL
      SELECT (SELECT o.host_id FROM operation o WHERE ${claimable} AND o.host_id > busy.host_id
              ORDER BY o.host_id LIMIT 1)
      FROM busy WHERE busy.host_id IS NOT NULL),
    mine AS (
      SELECT a.host_id, a.epoch, a.free
      -- As JSON, of which the planner has one opinion: arrays of other lengths it plans anew each time.
      FROM jsonb_to_recordset(${JSON.stringify(places)}::jsonb) AS a(host_id uuid, epoch bigint, free int)
      JOIN busy ON busy.host_id = a.host_id
      JOIN host h ON h.id = a.host_id AND h.epoch = a.epoch JOIN me ON me.id = h.owner_id),
    candidate AS (
      SELECT c.id, m.epoch, c.place, c.priority, c.turn FROM mine m CROSS JOIN LATERAL (
        SELECT o.id, o.priority, o.turn, row_number() OVER (ORDER BY o.priority DESC, o.turn) AS place
        FROM operation o WHERE o.host_id = m.host_id AND ${due} ORDER BY o.priority DESC, o.turn LIMIT m.free) c
      UNION ALL
      SELECT c.id, NULL::bigint, c.place, c.priority, c.turn FROM me CROSS JOIN LATERAL (
        SELECT o.id, o.priority, o.turn, row_number() OVER (ORDER BY o.priority DESC, o.turn) AS place
        FROM operation o WHERE o.host_id IS NULL AND ${due} ORDER BY o.priority DESC, o.turn
        LIMIT ${freeWithoutHost}::int) c),
    chosen AS (SELECT id, epoch FROM candidate ORDER BY place, priority DESC, turn LIMIT ${free}::int),
    locked AS (
      SELECT o.id, c.epoch, o.started_at IS NULL AS first
      FROM operation o JOIN chosen c ON c.id = o.id WHERE ${due} FOR UPDATE OF o SKIP LOCKED),
    taken AS (
      UPDATE operation o SET token = gen_random_uuid(), worker_id = me.id, epoch = l.epoch, wait_reason = NULL,
        state = CASE o.state WHEN 'pending' THEN 'running' ELSE o.state END, attempt = o.attempt + 1,
        started_at = coalesce(o.started_at, clock_timestamp())
      FROM locked l, me WHERE o.id = l.id
      RETURNING o.*, l.first),
    told AS (${operationEvents("operation.started", Prisma.sql`taken o WHERE o.first`)})
    SELECT o.id, o.kind, o.state, o.project_id, o.input, o.token, o.host_id, o.epoch, o.attempt, o.forward_only,
      o.undoing, o.error, o.cancel_reason,
      (extract(epoch FROM o.deadline - clock_timestamp()) * 1000)::float8 AS deadline_ms,
      (extract(epoch FROM o.undo_deadline - clock_timestamp()) * 1000)::float8 AS undo_deadline_ms,
      coalesce((SELECT jsonb_agg(jsonb_build_object('position', s.position, 'name', s.name, 'state', s.state,
          'attempts', s.attempts, 'undoAttempts', s.undo_attempts, 'hostId', s.host_id, 'found', s.found,
          'result', s.result) ORDER BY s.position)
        FROM operation_step s WHERE s.operation_id = o.id), '[]') AS steps,
      coalesce((SELECT jsonb_agg(jsonb_build_object('kind', l.kind, 'id', l.subject_id, 'mode', l.mode))
        FROM operation_subject l WHERE l.operation_id = o.id), '[]') AS subjects
    FROM taken o`;
  return rows;
}

/** Tells the clients of operations of a kind, of which this worker has as many as it takes, why they wait. */
export async function noteFullKind(db: Sql, kind: string, reason: JsonObject): Promise<void> {
  await db.$executeRaw`
    UPDATE operation SET wait_reason = ${jsonParameter(reason)}
    WHERE id IN (
      SELECT o.id FROM operation o WHERE ${claimable} AND o.kind = ${kind} AND o.wait_reason IS NULL
      LIMIT 1000 FOR UPDATE SKIP LOCKED)`;
}

/** The tokens of the operations that this worker runs and was asked to cancel, with the reason. */
export async function cancelRequests(
  db: Sql,
  workerId: WorkerId,
): Promise<readonly { readonly token: string; readonly reason: ErrorBody | null }[]> {
  return await db.$queryRaw`
    SELECT token, cancel_reason AS reason FROM operation
    WHERE worker_id = ${workerId}::uuid AND token IS NOT NULL AND state = 'cancelling' AND NOT undoing`;
}

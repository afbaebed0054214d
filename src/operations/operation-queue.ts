import { Prisma } from "../db/generated/client.ts";
import type { Db, Tx } from "../db/transaction.ts";
import { operationEvents } from "../events/event-store.ts";
import { asId, newId, type OperationId } from "../lib/ids.ts";
import type { EnqueueRequest, OperationKind, Subject } from "./operation-kind.ts";
import {
  deadlineSeconds,
  isForwardOnly,
  type KindRegistry,
  OVERTAKING_PRIORITY,
  overtakingRank,
} from "./operation-kinds.ts";
import { distinctSubjects, lockSubjects } from "./operation-lanes.ts";
import { cancelOvertaken, laneNeighbours } from "./operation-overtake.ts";
import { jsonParameter, subjectRows } from "./operation-sql.ts";
import type { OperationState } from "./operation-state.ts";

/** What the queue says of an operation that was just written. */
export interface OperationRecord {
  readonly id: OperationId;
  /** Its place in the order of all operations that share a subject with it. */
  readonly seq: bigint;
  readonly kind: string;
  readonly state: OperationState;
}

// How far one queued operation of an actor puts back its next one, in places; and how many are counted at most.
const PLACES_PER_QUEUED = 8;
const MOST_COUNTED = 1_000;

/**
 * Queues an operation in the caller's transaction, which must be at the isolation level "read committed". After
 * the commit, wake the workers: see `wakeAfterChange`.
 *
 * Locks the operation's lanes until the end of the transaction, so enqueue before locking rows of features that
 * exist already. An overtaking kind cancels what it overtakes in the same transaction.
 */
export async function enqueue<Input>(
  tx: Tx,
  request: EnqueueRequest<Input>,
  kinds: KindRegistry,
): Promise<OperationRecord> {
  const { kind, input } = request;
  const subjects = distinctSubjects(request.subjects);
  const rank = overtakingRank(kind, input);
  if (rank === 0) await lockSubjects(tx, subjects);
  else {
    const neighbours = await laneNeighbours(tx, subjects);
    await lockSubjects(tx, [...subjects, ...neighbours]);
    await cancelOvertaken(tx, kinds, { rank, subjects, by: request });
  }
  const record = await insertOperation(tx, request, subjects);
  await kinds.probe("enqueue.written", { operationId: record.id, kind: kind.name, step: null });
  return record;
}

interface InsertedRow {
  readonly seq: bigint;
  readonly state: OperationState;
}

async function insertOperation<Input>(
  tx: Tx,
  request: EnqueueRequest<Input>,
  subjects: readonly Subject[],
): Promise<OperationRecord> {
  const { kind, input, actor } = request;
  const id = newId<OperationId>();
  const hostId = await firstHost(tx, kind, input);
  const rank = overtakingRank(kind, input);
  const rows = await tx.$queryRaw<InsertedRow[]>`
    WITH s AS (SELECT * FROM ${subjectRows(subjects)}),
    blocking AS (SELECT EXISTS (
      SELECT FROM s JOIN operation_subject b ON b.kind = s.kind AND b.subject_id = s.subject_id AND b.unfinished
      WHERE s.mode = 'exclusive' OR b.mode = 'exclusive') AS yes),
    drawn AS (SELECT nextval('operation_seq') AS seq),
    o AS (
      INSERT INTO operation (id, seq, kind, state, project_id, input, targets, priority, turn, actor, request_id,
                             host_id, hosts, deadline, forward_only, overtakes, steps_total)
      SELECT ${id}::uuid, drawn.seq, ${kind.name}, CASE WHEN blocking.yes THEN 'blocked' ELSE 'pending' END,
             ${request.projectId}::uuid, ${jsonParameter(input)}, ${jsonParameter(request.targets)},
             ${rank === 0 ? 0 : OVERTAKING_PRIORITY}::int, drawn.seq + ${PLACES_PER_QUEUED}::int * (
               SELECT count(*) FROM (SELECT FROM operation q WHERE q.actor = ${actor} AND q.ended_at IS NULL
                                     LIMIT ${MOST_COUNTED}::int) AS queued),
             ${actor}, ${request.requestId}, ${hostId}::uuid, ${jsonParameter(request.hosts)},
             clock_timestamp() + make_interval(secs => ${deadlineSeconds(kind, input)}::float8),
             ${isForwardOnly(kind, input)}, ${rank}::int, ${kind.steps.length}::int
      FROM drawn, blocking
      RETURNING *),
    lanes AS (
      INSERT INTO operation_subject (operation_id, kind, subject_id, mode, seq, active)
      SELECT o.id, s.kind, s.subject_id, s.mode, o.seq, o.state = 'pending' FROM o, s),
    created AS (${operationEvents("operation.created", Prisma.sql`o`, Prisma.sql`jsonb_build_object('state', o.state)`)})
    SELECT seq, state FROM o`;
  const row = rows[0];
  if (row === undefined) throw new Error("an INSERT returned no row");
  return { id, seq: row.seq, kind: kind.name, state: row.state };
}

/** Whose owner looks at it first; asked again when the step begins. */
async function firstHost<Input>(tx: Tx, kind: OperationKind<Input>, input: Input): Promise<string | null> {
  const first = kind.steps.find((step) => step.skip?.(input) !== true);
  return (await first?.host?.(tx, input)) ?? null;
}

/** What is not ended yet on a subject, in order. */
export interface UnfinishedOperation extends OperationRecord {
  readonly mode: Subject["mode"];
}

/** The unfinished operations of a subject, oldest first: what a second delete joins, and what blocks. */
export async function unfinishedOperations(
  db: Db,
  subject: Pick<Subject, "kind" | "id">,
): Promise<UnfinishedOperation[]> {
  const rows = await db.$queryRaw<
    { id: string; seq: bigint; kind: string; state: OperationState; mode: Subject["mode"] }[]
  >`
    SELECT o.id, o.seq, o.kind, o.state, s.mode
    FROM operation_subject s JOIN operation o ON o.id = s.operation_id
    WHERE s.kind = ${subject.kind} AND s.subject_id = ${subject.id}::uuid AND s.unfinished ORDER BY s.seq`;
  return rows.map((row) => ({ ...row, id: asId<OperationId>(row.id) }));
}

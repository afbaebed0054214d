import { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { asId, type EventId, newId, type OperationId, type ProjectId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";

export interface EventSubject {
  /** `vm`, `host`, `image`, `operation` and so on. */
  readonly kind: string;
  readonly id: string;
  readonly name: string | null;
}

export interface NewEvent {
  /** `<subject>.<what happened>`, such as `vm.power.changed`. */
  readonly type: string;
  readonly subject: EventSubject;
  readonly projectId: ProjectId | null;
  readonly operationId?: OperationId | null;
  readonly data?: JsonObject;
}

/** An event as readers see it: numbered. */
export interface EventRecord {
  readonly seq: bigint;
  readonly id: EventId;
  readonly type: string;
  readonly at: Date;
  readonly projectId: ProjectId | null;
  readonly subject: EventSubject;
  readonly operationId: OperationId | null;
  readonly data: JsonObject;
}

/** All of a filter's parts must match; several values of one part are alternatives. */
export interface EventFilter {
  /** null or left out: every project, and what belongs to none. */
  readonly projectId?: ProjectId | null;
  /** A whole type, or its beginning up to a dot: `vm` matches `vm.created`. */
  readonly types?: readonly string[];
  readonly subjectKind?: string;
  readonly subjectId?: string;
  readonly operationId?: string;
}

/** Writes events in the transaction of the change. After its commit, wake the sequencer: `notify(WRITTEN)`. */
export async function appendEvent(tx: Tx, ...events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  const rows = events.map(
    ({ type, subject, projectId, operationId, data }) => Prisma.sql`(${newId<EventId>()}::uuid, ${type},
      ${projectId}::uuid, ${subject.kind}, ${subject.id}::uuid, ${subject.name}, ${operationId ?? null}::uuid,
      ${JSON.stringify(data ?? {})}::jsonb)`,
  );
  await tx.$executeRaw`
    INSERT INTO event (id, type, project_id, subject_kind, subject_id, subject_name, operation_id, data)
    VALUES ${Prisma.join(rows)}`;
}

/**
 * An INSERT of events in a part of the same statement, to stand in a WITH: each group is a SELECT of EVENT_ROW's columns,
 * and all groups are numbered in their order.
 */
export function insertEvents(groups: readonly Prisma.Sql[]): Prisma.Sql {
  const ordered = groups.map(
    (rows, place) => Prisma.sql`SELECT ${place}::int AS place, r.* FROM (${rows}) AS r`,
  );
  return Prisma.sql`INSERT INTO event (id, type, project_id, subject_kind, subject_id, subject_name, operation_id, data)
    SELECT gen_random_uuid(), e.type, e.project_id, e.kind, e.subject_id, e.name, e.operation_id, e.data
    FROM (${Prisma.join(ordered, " UNION ALL ")}) AS e ORDER BY e.place`;
}

/**
 * One event about each operation in a part of the same statement, for insertEvents. `source` gives rows `o` with
 * `id, kind, project_id, targets`; `data` is added to the kind and the targets.
 */
export function operationEventRows(
  type: string,
  source: Prisma.Sql,
  data: Prisma.Sql = Prisma.sql`'{}'::jsonb`,
): Prisma.Sql {
  return Prisma.sql`SELECT ${type}::text AS type, o.project_id, 'operation' AS kind, o.id AS subject_id, o.kind AS name,
    o.id AS operation_id, jsonb_build_object('kind', o.kind, 'targets', o.targets) || ${data} AS data FROM ${source}`;
}

/** The same as a whole INSERT. */
export function operationEvents(type: string, source: Prisma.Sql, data?: Prisma.Sql): Prisma.Sql {
  return insertEvents([operationEventRows(type, source, data)]);
}

/** One event about each VM in a part of the same statement: `source` gives rows `c` with `id, name, project_id`. */
export function vmEventRows(
  type: string,
  source: Prisma.Sql,
  operationId: OperationId | null,
  data: Prisma.Sql,
): Prisma.Sql {
  return Prisma.sql`SELECT ${type}::text AS type, c.project_id, 'vm' AS kind, c.id AS subject_id, c.name,
    ${operationId}::uuid AS operation_id, ${data} AS data FROM ${source}`;
}

interface EventRow {
  readonly seq: bigint;
  readonly id: string;
  readonly type: string;
  readonly at: Date;
  readonly project_id: string | null;
  readonly subject_kind: string;
  readonly subject_id: string;
  readonly subject_name: string | null;
  readonly operation_id: string | null;
  readonly data: JsonObject;
}

/** Numbered events after the cursor, oldest first. `after` 0 begins with the oldest that is kept. */
export async function listEvents(
  db: Sql,
  { after, limit, filter }: { readonly after: bigint; readonly limit: number; readonly filter: EventFilter },
): Promise<EventRecord[]> {
  const rows = await db.$queryRaw<EventRow[]>`
    SELECT seq, id, type, at, project_id, subject_kind, subject_id, subject_name, operation_id, data
    FROM event WHERE seq > ${after} AND ${matching(filter)} ORDER BY seq LIMIT ${limit}`;
  return rows.map(toRecord);
}

/** The number of the newest event; 0 when there is none yet. */
export async function latestEventSeq(db: Sql): Promise<bigint> {
  const rows = await db.$queryRaw<{ seq: bigint }[]>`
    SELECT seq FROM event WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1`;
  return rows[0]?.seq ?? 0n;
}

/**
 * Removes at most `limit` events older than `days`, oldest first. The newest one always stays: the next number is
 * counted from it. Returns how many were removed.
 */
export async function deleteOldEvents(db: Sql, days: number, limit: number): Promise<number> {
  return await db.$executeRaw`
    DELETE FROM event WHERE row_id IN (
      SELECT row_id FROM event
      WHERE seq IS NOT NULL AND at < now() - make_interval(days => ${days}::int)
        AND seq < (SELECT max(seq) FROM event)
      ORDER BY seq LIMIT ${limit})`;
}

function matching({ projectId, types, subjectKind, subjectId, operationId }: EventFilter): Prisma.Sql {
  const parts = [Prisma.sql`true`];
  if (projectId !== undefined && projectId !== null) parts.push(Prisma.sql`project_id = ${projectId}::uuid`);
  if (types !== undefined && types.length > 0)
    parts.push(
      Prisma.sql`EXISTS (SELECT FROM unnest(${[...types]}::text[]) AS t WHERE type = t OR starts_with(type, t || '.'))`,
    );
  if (subjectKind !== undefined) parts.push(Prisma.sql`subject_kind = ${subjectKind}`);
  if (subjectId !== undefined) parts.push(Prisma.sql`subject_id = ${subjectId}::uuid`);
  if (operationId !== undefined) parts.push(Prisma.sql`operation_id = ${operationId}::uuid`);
  return Prisma.join(parts, " AND ");
}

function toRecord(row: EventRow): EventRecord {
  return {
    seq: row.seq,
    id: asId<EventId>(row.id),
    type: row.type,
    at: row.at,
    projectId: row.project_id === null ? null : asId<ProjectId>(row.project_id),
    subject: { kind: row.subject_kind, id: row.subject_id, name: row.subject_name },
    operationId: row.operation_id === null ? null : asId<OperationId>(row.operation_id),
    data: row.data,
  };
}

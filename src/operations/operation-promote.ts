import type { Sql, Tx } from "../db/transaction.ts";
import type { Subject } from "./operation-kind.ts";
import { subjectRows } from "./operation-sql.ts";

/**
 * Makes `pending` what waited in these lanes and now may run. Called in the transaction that ends an operation,
 * with its lanes locked; returns how many may run.
 *
 * Safe without any lock: an operation that waits has only earlier ones before it, all of them committed (`seq` is
 * commit order), and what has ended stays ended. The lanes' locks and the row locks only see to it that nobody is
 * overlooked: two operations that share a subject and end at once would each still see the other.
 */
export async function promoteWaiting(tx: Tx, subjects: readonly Subject[]): Promise<number> {
  if (subjects.length === 0) return 0;
  const candidates = await tx.$queryRaw<{ id: string }[]>`
    SELECT o.id FROM operation o
    WHERE o.state = 'blocked' AND o.id IN (
      SELECT w.operation_id FROM ${subjectRows(subjects)}
      JOIN operation_subject w ON w.kind = s.kind AND w.subject_id = s.subject_id AND w.unfinished AND NOT w.active
      WHERE w.seq <= coalesce((
        SELECT min(x.seq) FROM operation_subject x
        WHERE x.kind = s.kind AND x.subject_id = s.subject_id AND x.unfinished AND x.mode = 'exclusive'), w.seq))
    ORDER BY o.seq FOR UPDATE`;
  if (candidates.length === 0) return 0;
  return await promote(
    tx,
    candidates.map(({ id }) => id),
  );
}

/** The backstop for what was overlooked: looks at the oldest that wait, whatever their lane. */
export async function promoteOverlooked(db: Sql, limit: number): Promise<number> {
  const candidates = await db.$queryRaw<{ id: string }[]>`
    SELECT o.id FROM operation o WHERE o.state = 'blocked' AND NOT EXISTS (
      SELECT FROM operation_subject mine JOIN operation_subject b
        ON b.kind = mine.kind AND b.subject_id = mine.subject_id AND b.unfinished AND b.seq < mine.seq
      WHERE mine.operation_id = o.id AND (mine.mode = 'exclusive' OR b.mode = 'exclusive'))
    ORDER BY o.seq LIMIT ${limit}::int`;
  if (candidates.length === 0) return 0;
  return await promote(
    db,
    candidates.map(({ id }) => id),
  );
}

/** A statement of its own: it must see what was committed while the candidates' rows were waited for. */
async function promote(db: Sql, ids: readonly string[]): Promise<number> {
  const promoted = await db.$queryRaw<{ id: string }[]>`
    WITH o AS (
      UPDATE operation o SET state = 'pending'
      WHERE o.id = ANY(${[...ids]}::text[]::uuid[]) AND o.state = 'blocked' AND NOT EXISTS (
        SELECT FROM operation_subject mine JOIN operation_subject b
          ON b.kind = mine.kind AND b.subject_id = mine.subject_id AND b.unfinished AND b.seq < mine.seq
        WHERE mine.operation_id = o.id AND (mine.mode = 'exclusive' OR b.mode = 'exclusive'))
      RETURNING o.id),
    lanes AS (UPDATE operation_subject l SET active = true FROM o WHERE l.operation_id = o.id)
    SELECT id FROM o`;
  return promoted.length;
}

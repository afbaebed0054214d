import type { Sql } from "../db/transaction.ts";

/**
 * Removes at most `limit` operations that ended more than `days` ago, the oldest first. What needs attention stays:
 * a person has not looked yet. Returns how many were removed.
 */
export async function deleteOldOperations(db: Sql, days: number, limit: number): Promise<number> {
  return await db.$executeRaw`
    DELETE FROM operation WHERE id IN (
      SELECT id FROM operation
      WHERE ended_at < now() - make_interval(days => ${days}::int) AND state <> 'attention'
      ORDER BY ended_at LIMIT ${limit}::int FOR UPDATE SKIP LOCKED)`;
}

import type { Session } from "../db/session.ts";

// "dros" in the upper half: apart from lanes (bit 62), workers ("drow") and small keys.
export const SEQUENCER_LOCK_KEY = (0x64726f73n << 32n) | 1n;

/** Takes the sequencer's lock for this session. False when another session holds it. */
export async function takeSequencerLock(session: Session, key: bigint): Promise<boolean> {
  const rows = await session.run<{ held: boolean }>("SELECT pg_try_advisory_lock($1) AS held", [
    key.toString(),
  ]);
  return rows[0]?.held === true;
}

/**
 * Numbers at most `limit` committed events and returns how many. Runs on the session that holds the lock: when the
 * lock is lost, so is the statement, and two can never number at once.
 *
 * Events of one transaction keep their order, and an event written after another's commit comes after it, for it
 * has a higher `row_id` and is seen no earlier. Numbers go on from the newest event, which is never removed.
 */
export async function numberEvents(session: Session, limit: number): Promise<number> {
  const rows = await session.run<{ count: number }>(
    `WITH waiting AS (
       SELECT row_id, row_number() OVER (ORDER BY row_id) AS place
       FROM (SELECT row_id FROM event WHERE seq IS NULL ORDER BY row_id LIMIT $1) AS oldest),
     newest AS (SELECT coalesce((SELECT seq FROM event WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1), 0) AS seq),
     numbered AS (
       UPDATE event e SET seq = newest.seq + waiting.place FROM waiting, newest
       WHERE e.row_id = waiting.row_id RETURNING 1)
     SELECT count(*)::int AS count FROM numbered`,
    [limit],
  );
  return rows[0]?.count ?? 0;
}

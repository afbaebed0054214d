import type { Listener } from "../db/listener.ts";
import type { Sql } from "../db/transaction.ts";
import { asId, type WorkerId } from "../lib/ids.ts";

/** Rows of workers: their leases, and what becomes of those that died. */

// Apart from lanes' keys (bit 62) and other small keys: "drow" in the upper half.
const LOCK_SPACE = 0x64726f77n << 32n;

/** The key of the session lock that a worker holds on its own connection. */
export function sessionLockKey(lockKey: bigint): bigint {
  return LOCK_SPACE | lockKey;
}

export interface LeaseTimes {
  readonly leaseSeconds: number;
  readonly sendSeconds: number;
}

/** Writes a new worker's row and returns the number of its session lock. */
export async function insertWorker(
  db: Sql,
  worker: { readonly id: WorkerId; readonly hostname: string; readonly pid: number } & LeaseTimes,
): Promise<bigint> {
  const rows = await db.$queryRaw<{ lock_key: bigint }[]>`
    INSERT INTO worker (id, hostname, pid, lease_expires_at, sends_until)
    VALUES (${worker.id}::uuid, ${worker.hostname}, ${worker.pid}::int,
            clock_timestamp() + make_interval(secs => ${worker.leaseSeconds}::float8),
            clock_timestamp() + make_interval(secs => ${worker.sendSeconds}::float8))
    RETURNING lock_key`;
  const row = rows[0];
  if (row === undefined) throw new Error("an INSERT returned no row");
  return row.lock_key;
}

/** Extends a lease. False when the row is gone: the worker was declared dead. */
export async function renewLease(
  db: Sql,
  id: WorkerId,
  { leaseSeconds, sendSeconds }: LeaseTimes,
): Promise<boolean> {
  const renewed = await db.$executeRaw`
    UPDATE worker SET lease_expires_at = clock_timestamp() + make_interval(secs => ${leaseSeconds}::float8),
                      sends_until = clock_timestamp() + make_interval(secs => ${sendSeconds}::float8)
    WHERE id = ${id}::uuid`;
  return renewed === 1;
}

/** The same on the listener's connection: what queues for the pool must not cost a worker its lease. */
export async function renewLeaseOver(
  listener: Pick<Listener, "run">,
  id: WorkerId,
  { leaseSeconds, sendSeconds }: LeaseTimes,
): Promise<boolean> {
  const renewed = await listener.run(
    `UPDATE worker SET lease_expires_at = clock_timestamp() + make_interval(secs => $2::float8),
                       sends_until = clock_timestamp() + make_interval(secs => $3::float8)
     WHERE id = $1::uuid RETURNING id`,
    [id, leaseSeconds, sendSeconds],
  );
  return renewed.length === 1;
}

/** Says that the worker takes nothing new any more. */
export async function markDraining(db: Sql, id: WorkerId): Promise<void> {
  await db.$executeRaw`UPDATE worker SET draining = true WHERE id = ${id}::uuid`;
}

/**
 * Ends a worker's lease at once, and gives up its hosts and operations: when it stops, or has lost its lease.
 */
export async function removeWorker(db: Sql, id: WorkerId): Promise<void> {
  await db.$executeRaw`DELETE FROM worker WHERE id = ${id}::uuid`;
  await releaseOrphans(db);
}

/**
 * Removes dead workers and returns who died; their hosts are free with that, see releaseOrphans. Dead is whose lease
 * is over, or who has lost its session and may not send any more.
 *
 * Why that is safe. Two rights are to be taken away from a worker: to write, and to send calls to hosts. Its writes
 * all ask for its row with a lease that is not over; this statement deletes the row, and a write that runs at the
 * same time comes before or after, for each write locks the operation's row, and nobody else takes the operation
 * before its token is cleared behind this statement. Its calls are held back by its own clock only. It sends until
 * `sendSeconds` after the instant *before* it sent its last successful renewal; `sends_until` was set by the
 * database later than that instant, so once it has passed by the database's clock, it has passed by the worker's
 * too, as far as both clocks run at one speed. Hence a free session lock alone proves nothing (a connection can
 * break while the worker lives, a new primary knows no session locks) and is only taken together with
 * `sends_until`. A worker that lives on renews, which moves `sends_until` on: a broken session connection does not
 * cost a healthy worker its lease. A renewal that runs at the same time as this statement is seen: whoever waited
 * for the row looks at it again.
 *
 * It touches no other row: one that a frozen worker has locked would hold up the takeover from all dead ones.
 */
export async function reapWorkers(db: Sql): Promise<WorkerId[]> {
  const dead = await db.$queryRaw<{ id: string }[]>`
    DELETE FROM worker w
    WHERE w.lease_expires_at < clock_timestamp()
       OR (w.sends_until < clock_timestamp() AND NOT EXISTS (
         SELECT FROM pg_locks l
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
           AND (l.classid::bigint << 32) | l.objid::bigint = ${LOCK_SPACE}::bigint | w.lock_key))
    RETURNING w.id`;
  return dead.map(({ id }) => asId<WorkerId>(id));
}

/**
 * Clears the claims that nobody stands behind any more: hosts whose owner is gone, and operations whose worker is
 * gone or whose host has another owner or epoch. Says what must hold instead of what happened, so that it also mends
 * what a takeover in between left. Rows that somebody has locked (a frozen worker in the middle of a transaction)
 * are left for the next time.
 */
export async function releaseOrphans(db: Sql): Promise<number> {
  await db.$executeRaw`
    UPDATE host SET owner_id = NULL WHERE id IN (
      SELECT h.id FROM host h
      WHERE h.owner_id IS NOT NULL AND NOT EXISTS (SELECT FROM worker w WHERE w.id = h.owner_id)
      FOR UPDATE OF h SKIP LOCKED)`;
  return await db.$executeRaw`
    UPDATE operation SET token = NULL, worker_id = NULL, epoch = NULL
    WHERE id IN (
      SELECT o.id FROM operation o
      WHERE o.token IS NOT NULL AND (
        NOT EXISTS (SELECT FROM worker w WHERE w.id = o.worker_id)
        OR (o.host_id IS NOT NULL AND NOT EXISTS (
          SELECT FROM host h WHERE h.id = o.host_id AND h.owner_id = o.worker_id AND h.epoch = o.epoch)))
      FOR UPDATE OF o SKIP LOCKED)`;
}

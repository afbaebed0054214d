import type { Db } from "../db/transaction.ts";
import { asId, type HostId, type WorkerId } from "../lib/ids.ts";

export interface OwnedHost {
  readonly id: HostId;
  readonly name: string;
  readonly epoch: bigint;
  /** Another one after every change of what a connection is made from. */
  readonly connectionKey: string;
}

/** How many hosts a worker owns, and how many it should. */
export interface Share {
  readonly owned: number;
  readonly fair: number;
}

/**
 * A worker's fair share of all hosts. Where they cannot be divided evenly, those that own the most keep one more: so
 * shares move no host that need not move, and everybody who looks at the same state finds the same shares. A worker
 * that has been silent for a while counts no more, long before its lease is over: nothing is kept free for it. Null
 * when that is this worker, or it drains.
 */
export async function shareOf(db: Db, workerId: WorkerId): Promise<Share | null> {
  const rows = await db.$queryRaw<Share[]>`
    WITH living AS (
      SELECT w.id, (SELECT count(*) FROM host h WHERE h.owner_id = w.id) AS owned
      FROM worker w WHERE w.sends_until > clock_timestamp() AND NOT w.draining),
    ranked AS (
      SELECT id, owned, row_number() OVER (ORDER BY owned DESC, id) AS place, count(*) OVER () AS workers FROM living)
    SELECT r.owned::int, (t.hosts / r.workers + CASE WHEN r.place <= t.hosts % r.workers THEN 1 ELSE 0 END)::int AS fair
    FROM ranked r, (SELECT count(*) AS hosts FROM host) t WHERE r.id = ${workerId}::uuid`;
  return rows[0] ?? null;
}

/**
 * Takes hosts that nobody owns (or whom a worker owns that is gone: a takeover may have crossed its end), as many as
 * bring this worker to its fair share, and raises the epoch of each: whatever an earlier owner still believes, its
 * writes no longer match. Takes nothing when the worker's own lease is over, or it drains. Returns the share as it
 * was before.
 */
export async function acquireHosts(db: Db, workerId: WorkerId): Promise<Share | null> {
  const share = await shareOf(db, workerId);
  if (share === null || share.owned >= share.fair) return share;
  await db.$executeRaw`
    UPDATE host SET owner_id = ${workerId}::uuid, epoch = epoch + 1
    WHERE id IN (
      SELECT id FROM host h
      WHERE owner_id IS NULL OR NOT EXISTS (SELECT 1 FROM worker o WHERE o.id = h.owner_id)
      ORDER BY id
      LIMIT ${share.fair - share.owned}::int
      FOR UPDATE SKIP LOCKED)
    AND EXISTS (
      SELECT 1 FROM worker WHERE id = ${workerId}::uuid AND lease_expires_at > clock_timestamp() AND NOT draining)`;
  return share;
}

/** The hosts that this worker owns now. */
export async function ownedHosts(db: Db, workerId: WorkerId): Promise<OwnedHost[]> {
  const rows = await db.$queryRaw<{ id: string; name: string; epoch: bigint; connection_key: string }[]>`
    SELECT id, name, epoch,
           md5(uri || ' ' || accelerator || ' ' || coalesce(encode(credentials, 'hex'), '')) AS connection_key
    FROM host WHERE owner_id = ${workerId}::uuid`;
  return rows.map((row) => ({
    id: asId<HostId>(row.id),
    name: row.name,
    epoch: row.epoch,
    connectionKey: row.connection_key,
  }));
}

/** Gives one host up, where it is still the worker's own under this epoch. */
export async function releaseHost(
  db: Db,
  workerId: WorkerId,
  { id, epoch }: Pick<OwnedHost, "id" | "epoch">,
): Promise<void> {
  await db.$executeRaw`
    UPDATE host SET owner_id = NULL
    WHERE id = ${id}::uuid AND owner_id = ${workerId}::uuid AND epoch = ${epoch}`;
}

/** Gives all its hosts up, so that other workers take them at once. */
export async function releaseHosts(db: Db, workerId: WorkerId): Promise<void> {
  await db.$executeRaw`UPDATE host SET owner_id = NULL WHERE owner_id = ${workerId}::uuid`;
}

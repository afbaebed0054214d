import type { Db, Tx } from "../db/transaction.ts";
import { asId, type HostId, type WorkerId } from "../lib/ids.ts";

export interface OwnedHost {
  readonly id: HostId;
  readonly name: string;
  readonly epoch: bigint;
  /** Another one after every change of what a connection is made from. */
  readonly connectionKey: string;
}

/**
 * Takes hosts that nobody owns (or whom a worker owns that is gone: a takeover may have crossed its end), as many as bring this worker to its fair share of all hosts, and raises the epoch of
 * each: whatever an earlier owner still believes, its writes no longer match. Takes nothing when the worker's own
 * lease is over.
 */
export async function acquireHosts(tx: Tx, workerId: WorkerId): Promise<void> {
  await tx.$executeRaw`
    UPDATE host SET owner_id = ${workerId}::uuid, epoch = epoch + 1
    WHERE id IN (
      SELECT id FROM host h
      WHERE owner_id IS NULL OR NOT EXISTS (SELECT 1 FROM worker o WHERE o.id = h.owner_id)
      ORDER BY id
      LIMIT greatest(0, (
        SELECT ceil((SELECT count(*) FROM host)::numeric / greatest(1, count(*)))::int
        FROM worker WHERE lease_expires_at > now() AND NOT draining
      ) - (SELECT count(*)::int FROM host WHERE owner_id = ${workerId}::uuid))
      FOR UPDATE SKIP LOCKED)
    AND EXISTS (SELECT 1 FROM worker WHERE id = ${workerId}::uuid AND lease_expires_at > now() AND NOT draining)`;
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

/** Gives hosts back, so that another worker takes them at once. */
export async function releaseHosts(tx: Tx, workerId: WorkerId): Promise<void> {
  await tx.$executeRaw`UPDATE host SET owner_id = NULL WHERE owner_id = ${workerId}::uuid`;
}

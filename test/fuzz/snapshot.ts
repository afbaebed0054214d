import type { Database } from "../../src/db/client.ts";

/** What a refused request must leave alone: a digest of each table, without what observation and workers write. */
export type Snapshot = Readonly<Record<string, string>>;

/** Takes the digest of everything that a client can make or change. */
export async function takeSnapshot(db: Database): Promise<Snapshot> {
  const [row] = await db.$queryRaw<Snapshot[]>`
    SELECT
      (SELECT md5(string_agg(concat_ws('|', id, name, labels, spec, generation), ';' ORDER BY id)) FROM vm) AS vm,
      (SELECT md5(string_agg(concat_ws('|', id, name, uri, credentials, accelerator, labels, generation, schedulable,
        reserve_memory_mib, reserve_cpu_count, cpu_overcommit, memory_overcommit), ';' ORDER BY id))
        FROM host) AS host,
      (SELECT md5(string_agg(concat_ws('|', id, name, labels, generation, sha256), ';' ORDER BY id))
        FROM image) AS image,
      (SELECT md5(string_agg(concat_ws('|', id, name, labels, generation, base64), ';' ORDER BY id))
        FROM ssh_key) AS ssh_key,
      (SELECT md5(string_agg(concat_ws('|', id, name, labels, generation, state), ';' ORDER BY id))
        FROM network) AS network,
      (SELECT md5(string_agg(concat_ws('|', vm_id, name, network, mac_address), ';' ORDER BY vm_id, name))
        FROM vm_nic) AS vm_nic,
      (SELECT md5(string_agg(concat_ws('|', network_id, address, vm_id), ';' ORDER BY network_id, address))
        FROM network_address) AS network_address,
      (SELECT md5(string_agg(concat_ws('|', vm_id, md5(files)), ';' ORDER BY vm_id)) FROM vm_seed) AS vm_seed,
      (SELECT md5(string_agg(concat_ws('|', id, vm_id, host_id, pool, name, own_name, labels,
        generation, delete_policy), ';' ORDER BY id))
        FROM volume) AS volume,
      (SELECT md5(string_agg(concat_ws('|', vm_id, host_id, cpu_count, memory_mib), ';' ORDER BY vm_id))
        FROM reservation) AS reservation,
      (SELECT md5(string_agg(concat_ws('|', id, kind, cancel_asked_at), ';' ORDER BY id))
        FROM operation WHERE actor LIKE 'token:%') AS operation,
      (SELECT md5(string_agg(concat_ws('|', id, name, revoked_at, expires_at), ';' ORDER BY id))
        FROM api_token) AS api_token,
      (SELECT md5(string_agg(concat_ws('|', method, path, key, request_hash), ';' ORDER BY method, path, key))
        FROM idempotency_key) AS idempotency_key`;
  if (row === undefined) throw new Error("no snapshot");
  return row;
}

/** The tables that differ. */
export function changedTables(before: Snapshot, after: Snapshot): string[] {
  return Object.keys(after).filter((table) => before[table] !== after[table]);
}

/** How many operations have not ended: what they change is not the fault of the request that is looked at. */
export async function countUnfinished(db: Database): Promise<number> {
  return await db.operation.count({ where: { endedAt: null } });
}

/** True when the request with this id left an operation behind. */
export async function leftOperation(db: Database, requestId: string): Promise<boolean> {
  return (await db.operation.count({ where: { requestId } })) > 0;
}

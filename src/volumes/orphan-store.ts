import type { Sql, Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { asId, type HostId, type InstallationId, newId, type ProjectId, type VolumeId } from "../lib/ids.ts";
import { FREE_ROLE } from "./volume-record.ts";

/** What a look into the pools of a host shows of our volumes: their sizes, and those that nothing owns. */

/** A volume with our mark, as its pool showed it. */
export interface SeenVolume {
  readonly pool: string;
  readonly name: string;
  readonly capacityBytes: number;
  readonly allocationBytes: number;
}

/** Writes what volumes take of their pools, and how large they are; only where it differs. */
export async function recordSizes(
  tx: Tx,
  hostId: HostId,
  seen: readonly SeenVolume[],
  observedAt: Date,
): Promise<void> {
  // One that an operation works on is left to it; a file that a VM boots with has the size of its content.
  await tx.$executeRaw`
    UPDATE volume l SET allocation_bytes = s."allocationBytes", observed_at = ${observedAt},
      capacity_bytes = CASE WHEN l.role LIKE 'disk:%' OR l.role = ${FREE_ROLE}
        THEN greatest(l.capacity_bytes, s."capacityBytes") ELSE l.capacity_bytes END
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb)
      AS s(pool text, name text, "capacityBytes" bigint, "allocationBytes" bigint)
    WHERE l.host_id = ${hostId}::uuid AND l.pool = s.pool AND l.name = s.name AND l.state = 'ready'
      AND l.updated_at <= ${observedAt}
      AND (l.allocation_bytes IS DISTINCT FROM s."allocationBytes" OR l.capacity_bytes < s."capacityBytes")
      AND NOT EXISTS (SELECT FROM operation_subject o WHERE o.unfinished AND o.active
        AND (o.kind = 'volume' AND o.subject_id = l.id OR o.kind = 'vm' AND o.subject_id = l.vm_id))`;
}

/** Which of these names have no row on any host: pools may be shared, so one look cannot tell whose a volume is. */
async function unowned(tx: Tx, names: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await tx.$queryRaw<{ name: string }[]>`
    SELECT n.name FROM unnest(${[...names]}::text[]) AS n(name)
    WHERE NOT EXISTS (SELECT FROM volume l WHERE l.name = n.name)`;
  return new Set(rows.map(({ name }) => name));
}

/** Gives each of these that has no row one, as an orphan of the default project. */
export async function recordOrphans(
  tx: Tx,
  hostId: HostId,
  seen: readonly SeenVolume[],
  observedAt: Date,
): Promise<void> {
  if (seen.length === 0) return;
  const names = await unowned(
    tx,
    seen.map(({ name }) => name),
  );
  const rows = seen
    .filter(({ name }) => names.has(name))
    .map((volume) => ({
      id: newId<VolumeId>(),
      format: volume.name.endsWith(".qcow2") ? "qcow2" : "raw",
      ...volume,
    }));
  if (rows.length === 0) return;
  const written = await tx.$queryRaw<
    { id: string; pool: string; name: string; project: string; host: string }[]
  >`
    INSERT INTO volume (id, project_id, host_id, pool, name, role, format, capacity_bytes, allocation_bytes, observed_at,
                        state, orphan_since)
    SELECT n.id, p.id, h.id, n.pool, n.name, ${FREE_ROLE}, n.format, n."capacityBytes", n."allocationBytes",
      ${observedAt}, 'ready', ${observedAt}
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      AS n(id uuid, pool text, name text, format text, "capacityBytes" bigint, "allocationBytes" bigint)
    JOIN project p ON p.name = 'default' JOIN host h ON h.id = ${hostId}::uuid
    ON CONFLICT (host_id, pool, name) DO NOTHING
    RETURNING id, pool, name, project_id AS project, (SELECT name FROM host WHERE id = host_id) AS host`;
  await appendEvent(
    tx,
    ...written.map(({ id, pool, name, project, host }) => ({
      type: "volume.orphaned",
      subject: { kind: "volume", id, name: null },
      projectId: asId<ProjectId>(project),
      data: { host, pool, nameInPool: name },
    })),
  );
}

/** Forgets the orphans of these pools that are not there any more, such as one that was seen in its last moment. */
export async function forgetOrphans(
  tx: Tx,
  hostId: HostId,
  pools: readonly string[],
  seen: readonly SeenVolume[],
): Promise<void> {
  const names = seen.map(({ name }) => name);
  await tx.$executeRaw`
    DELETE FROM volume l WHERE l.host_id = ${hostId}::uuid AND l.orphan_since IS NOT NULL
      AND l.pool = ANY(${[...pools]}::text[]) AND NOT l.name = ANY(${names}::text[])
      AND NOT EXISTS (SELECT FROM operation_subject o
        WHERE o.kind = 'volume' AND o.subject_id = l.id AND o.unfinished)`;
}

export interface Orphan {
  readonly id: VolumeId;
  readonly projectId: ProjectId;
  readonly nameInPool: string;
  readonly host: string;
}

/**
 * Orphans whose grace time is over and that nobody works on. None of a host with a domain of ours that no VM stands for:
 * such a one may have it, since the inventory was restored or the host forgotten.
 */
export async function ripeOrphans(
  db: Sql,
  installationId: InstallationId,
  graceSeconds: number,
  limit: number,
): Promise<Orphan[]> {
  return await db.$queryRaw<Orphan[]>`
    SELECT l.id, l.project_id AS "projectId", l.name AS "nameInPool", h.name AS host
    FROM volume l JOIN host h ON h.id = l.host_id
    WHERE l.orphan_since < clock_timestamp() - make_interval(secs => ${graceSeconds}::float8) AND l.vm_id IS NULL
      AND h.state = 'ready'
      AND NOT EXISTS (SELECT FROM operation_subject o
        WHERE o.kind = 'volume' AND o.subject_id = l.id AND o.unfinished)
      AND NOT EXISTS (SELECT FROM observed_domain d WHERE d.host_id = l.host_id
        AND d.installation_id = ${installationId}::text
        AND NOT EXISTS (SELECT FROM vm WHERE vm.domain_uuid = d.domain_uuid AND vm.host_id = d.host_id))
      AND NOT EXISTS (SELECT FROM volume other WHERE other.name = l.name AND other.id <> l.id)
    ORDER BY l.orphan_since LIMIT ${limit}`;
}

import { Prisma } from "../db/generated/client.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Db, Sql, Tx } from "../db/transaction.ts";
import type { DriverName, HostCredentials, HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type HostId, isUuid } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import type { HostPolicy, HostRecord, HostState } from "./host-record.ts";

type HostRow = NonNullable<Awaited<ReturnType<Db["host"]["findUnique"]>>>;

const COLUMNS = Prisma.sql`id, name, uri, driver, hypervisor, credentials, accelerator, labels, generation, schedulable,
  state, error, host_uuid AS "hostUuid", facts, cpu_count AS "cpuCount", memory_mib AS "memoryMib",
  reserve_memory_mib AS "reserveMemoryMib", reserve_cpu_count AS "reserveCpuCount", cpu_overcommit AS "cpuOvercommit",
  memory_overcommit AS "memoryOvercommit", unmanaged_memory_mib AS "unmanagedMemoryMib",
  unmanaged_cpu_count AS "unmanagedCpuCount", owner_id AS "ownerId", epoch, inventory_seq AS "inventorySeq",
  inventory_at AS "inventoryAt", last_seen_at AS "lastSeenAt", created_at AS "createdAt", updated_at AS "updatedAt"`;

/** A row as the rest of the program sees it. The columns are written by this program only, so their types are known. */
function recordOf(row: HostRow): HostRecord {
  const { cpuCount, memoryMib, reserveCpuCount, reserveMemoryMib, cpuOvercommit, memoryOvercommit } = row;
  const policy = { reserveCpuCount, reserveMemoryMib, cpuOvercommit, memoryOvercommit };
  return {
    id: asId<HostId>(row.id),
    name: row.name,
    uri: row.uri,
    driver: row.driver as DriverName,
    hypervisor: row.hypervisor as Hypervisor,
    accelerator: row.accelerator as HostRecord["accelerator"],
    labels: row.labels as Record<string, string>,
    generation: row.generation,
    schedulable: row.schedulable,
    state: row.state as HostState,
    error: row.error as ErrorBody | null,
    facts: row.facts as HostFacts | null,
    policy,
    capacity:
      cpuCount === null || memoryMib === null
        ? null
        : {
            ...policy,
            cpuCount,
            memoryMib,
            unmanagedCpuCount: row.unmanagedCpuCount,
            unmanagedMemoryMib: row.unmanagedMemoryMib,
          },
    inventorySeq: Number(row.inventorySeq),
    inventoryAt: row.inventoryAt,
    lastSeenAt: row.lastSeenAt,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
  };
}

/** The host of this id or name, or null. */
export async function findHost(tx: Sql, idOrName: string): Promise<HostRecord | null> {
  const [row] = await tx.$queryRaw<HostRow[]>`SELECT ${COLUMNS} FROM host WHERE ${named(idOrName)}`;
  return row === undefined ? null : recordOf(row);
}

function named(idOrName: string): Prisma.Sql {
  return isUuid(idOrName) ? Prisma.sql`id = ${idOrName}::uuid` : Prisma.sql`name = ${idOrName}`;
}

/** What can be changed of a host. */
export interface HostSettings extends HostPolicy {
  readonly accelerator: HostRecord["accelerator"];
  readonly labels: Readonly<Record<string, string>>;
}

export interface NewHost extends HostSettings {
  readonly id: HostId;
  readonly name: string;
  readonly uri: string;
  readonly driver: DriverName;
  readonly hypervisor: Hypervisor;
  readonly credentials: Uint8Array<ArrayBuffer> | null;
  readonly hostUuid: string | null;
}

/** Writes a new host. A taken name or machine is a unique violation. */
export async function insertHost(tx: Tx, host: NewHost): Promise<HostRecord> {
  const [row] = await tx.$queryRaw<HostRow[]>`
    INSERT INTO host (id, name, uri, driver, hypervisor, credentials, host_uuid, accelerator, labels, reserve_cpu_count,
                      reserve_memory_mib, cpu_overcommit, memory_overcommit, updated_at)
    VALUES (${host.id}::uuid, ${host.name}, ${host.uri}, ${host.driver}, ${host.hypervisor}, ${host.credentials},
            ${host.hostUuid}, ${host.accelerator}, ${JSON.stringify(host.labels)}::jsonb, ${host.reserveCpuCount},
            ${host.reserveMemoryMib}, ${host.cpuOvercommit}, ${host.memoryOvercommit}, now())
    RETURNING ${COLUMNS}`;
  if (row === undefined) throw new Error("an INSERT returned no row");
  return recordOf(row);
}

/** The host as it stands, its row locked until the transaction ends; null when there is none. */
export async function lockHost(tx: Tx, idOrName: string): Promise<HostRecord | null> {
  const [row] = await tx.$queryRaw<
    HostRow[]
  >`SELECT ${COLUMNS} FROM host WHERE ${named(idOrName)} FOR UPDATE`;
  return row === undefined ? null : recordOf(row);
}

/** Changes settings and raises the generation; credentials only where they are given. */
export async function updateHostSettings(
  tx: Tx,
  id: HostId,
  settings: HostSettings & { readonly credentials?: Uint8Array<ArrayBuffer> },
): Promise<void> {
  await tx.$executeRaw`
    UPDATE host SET accelerator = ${settings.accelerator}, labels = ${JSON.stringify(settings.labels)}::jsonb,
      reserve_cpu_count = ${settings.reserveCpuCount}, reserve_memory_mib = ${settings.reserveMemoryMib},
      cpu_overcommit = ${settings.cpuOvercommit}, memory_overcommit = ${settings.memoryOvercommit},
      credentials = coalesce(${settings.credentials ?? null}::bytea, credentials), generation = generation + 1,
      updated_at = now()
    WHERE id = ${id}::uuid`;
}

/** Changes whether VMs are placed on the host, and raises the generation. */
export async function setSchedulable(tx: Tx, id: HostId, schedulable: boolean): Promise<void> {
  await tx.$executeRaw`
    UPDATE host SET schedulable = ${schedulable}, generation = generation + 1, updated_at = now()
    WHERE id = ${id}::uuid`;
}

/** Deletes the row with what was observed on the host. VMs, volumes or reservations on it are a foreign key violation. */
export async function deleteHostRow(tx: Tx, id: HostId): Promise<void> {
  await tx.$executeRaw`DELETE FROM host WHERE id = ${id}::uuid`;
}

/** What a connection needs, credentials opened. */
export interface HostAccessData {
  readonly id: HostId;
  readonly name: string;
  readonly uri: string;
  readonly accelerator: HostRecord["accelerator"];
  readonly credentials: HostCredentials;
}

export async function hostAccessData(tx: Sql, id: HostId, box: SecretBox): Promise<HostAccessData | null> {
  const [row] = await tx.$queryRaw<HostRow[]>`SELECT ${COLUMNS} FROM host WHERE id = ${id}::uuid`;
  if (row === undefined) return null;
  return {
    id,
    name: row.name,
    uri: row.uri,
    accelerator: row.accelerator as HostRecord["accelerator"],
    credentials: row.credentials === null ? {} : (JSON.parse(box.open(row.credentials)) as HostCredentials),
  };
}

/** The name of the host whose machine has this UUID, or null. */
export async function hostOfMachine(db: Sql, hostUuid: string): Promise<string | null> {
  const [row] = await db.$queryRaw<{ name: string }[]>`SELECT name FROM host WHERE host_uuid = ${hostUuid}`;
  return row?.name ?? null;
}

export interface HostFilter {
  readonly state?: HostState | undefined;
  readonly hypervisor?: Hypervisor | undefined;
  readonly schedulable?: boolean | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

/** Hosts in the order of their names, after the given one. */
export async function listHosts(
  tx: Sql,
  filter: HostFilter,
  page: { readonly afterName: string | null; readonly limit: number },
): Promise<HostRecord[]> {
  const conditions = [
    page.afterName === null ? Prisma.sql`true` : Prisma.sql`name > ${page.afterName}`,
    filter.state === undefined ? Prisma.sql`true` : Prisma.sql`state = ${filter.state}`,
    filter.hypervisor === undefined ? Prisma.sql`true` : Prisma.sql`hypervisor = ${filter.hypervisor}`,
    filter.schedulable === undefined ? Prisma.sql`true` : Prisma.sql`schedulable = ${filter.schedulable}`,
    labelCondition(filter.labels ?? [], Prisma.sql`labels`),
  ];
  const rows = await tx.$queryRaw<HostRow[]>`
    SELECT ${COLUMNS} FROM host WHERE ${Prisma.join(conditions, " AND ")} ORDER BY name LIMIT ${page.limit}`;
  return rows.map(recordOf);
}

export interface ReservedSum {
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly vmCount: number;
}

/** What VMs have reserved on each of these hosts. */
export async function reservedOn(tx: Sql, ids: readonly HostId[]): Promise<Map<string, ReservedSum>> {
  const sums = await tx.$queryRaw<(ReservedSum & { hostId: string })[]>`
    SELECT host_id AS "hostId", sum(cpu_count)::float8 AS "cpuCount", sum(memory_mib)::float8 AS "memoryMib",
           count(*)::int AS "vmCount"
    FROM reservation WHERE host_id = ANY(${[...ids]}::text[]::uuid[]) GROUP BY host_id`;
  return new Map(sums.map(({ hostId, ...sum }) => [hostId, sum]));
}

export async function getHost(db: Sql, id: HostId): Promise<HostRecord | null> {
  return await findHost(db, id);
}

/** The VMs on a host. */
export async function vmsOnHost(
  db: Sql,
  idOrName: string,
): Promise<{ id: string; name: string; projectId: string }[]> {
  return await db.$queryRaw<{ id: string; name: string; projectId: string }[]>`
    SELECT v.id, v.name, v.project_id AS "projectId" FROM vm v
    WHERE v.host_id = (SELECT id FROM host WHERE ${named(idOrName)})`;
}

/** The volumes on a host. */
export async function volumeIdsOnHost(db: Sql, id: HostId): Promise<readonly string[]> {
  const rows = await db.$queryRaw<{ id: string }[]>`SELECT id FROM volume WHERE host_id = ${id}::uuid`;
  return rows.map((row) => row.id);
}

/** The copies of images that a host has: what fills and evicts them has them as subjects. */
export async function hostImageIdsOn(db: Sql, id: HostId): Promise<string[]> {
  const rows = await db.$queryRaw<{ id: string }[]>`SELECT id FROM host_image WHERE host_id = ${id}::uuid`;
  return rows.map((row) => row.id);
}

/**
 * Removes the VMs of a host with their volumes from the inventory, and says which they were. That it has networks is
 * forgotten too.
 */
export async function deleteHostVms(
  tx: Tx,
  id: HostId,
): Promise<{ id: string; name: string; projectId: string }[]> {
  const vms = await vmsOnHost(tx, id);
  await tx.$executeRaw`DELETE FROM volume WHERE host_id = ${id}::uuid`;
  await tx.$executeRaw`DELETE FROM vm WHERE host_id = ${id}::uuid`;
  await tx.$executeRaw`DELETE FROM network_host WHERE host_id = ${id}::uuid`;
  return vms;
}

export interface HostDomainRow {
  readonly uuid: string;
  readonly name: string;
  readonly power: string;
  readonly reason: string | null;
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly autostart: boolean;
  /** The VM whose domain it is, by our mark and a row of the inventory. */
  readonly vmId: string | null;
  /** When it was last seen: the last inventory shows every domain that is listed. */
  readonly observedAt: Date;
}

/** The domains that a host was last seen to have, by name. */
export async function domainsOnHost(db: Sql, hostId: HostId): Promise<HostDomainRow[]> {
  return await db.$queryRaw<HostDomainRow[]>`
    SELECT d.domain_uuid AS uuid, d.name, d.power, d.reason, d.cpu_count AS "cpuCount", d.memory_mib AS "memoryMib",
      d.autostart, v.id AS "vmId", greatest(d.observed_at, h.inventory_at) AS "observedAt"
    FROM observed_domain d JOIN host h ON h.id = d.host_id
    LEFT JOIN vm v ON v.domain_uuid = d.domain_uuid AND v.host_id = d.host_id
      AND EXISTS (SELECT 1 FROM installation i WHERE i.id::text = d.installation_id)
    WHERE d.host_id = ${hostId}::uuid ORDER BY d.name, d.domain_uuid`;
}

export async function networksOnHost(db: Db, hostId: HostId) {
  return await db.hostNetwork.findMany({ where: { hostId }, orderBy: { name: "asc" } });
}

export async function poolsOnHost(db: Db, hostId: HostId) {
  return await db.hostPool.findMany({ where: { hostId }, orderBy: { name: "asc" } });
}

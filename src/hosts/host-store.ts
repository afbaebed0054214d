import { Prisma } from "../db/generated/client.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Db, Tx } from "../db/transaction.ts";
import type { DriverName, HostCredentials, HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type HostId, isUuid } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import type { HostPolicy, HostRecord, HostState } from "./host-record.ts";

type HostRow = NonNullable<Awaited<ReturnType<Db["host"]["findUnique"]>>>;

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
export async function findHost(tx: Db, idOrName: string): Promise<HostRecord | null> {
  const row = await tx.host.findUnique({ where: isUuid(idOrName) ? { id: idOrName } : { name: idOrName } });
  return row === null ? null : recordOf(row);
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
  return recordOf(await tx.host.create({ data: host }));
}

/** The host as it stands, its row locked until the transaction ends; null when there is none. */
export async function lockHost(tx: Tx, idOrName: string): Promise<HostRecord | null> {
  const match = isUuid(idOrName) ? Prisma.sql`id = ${idOrName}::uuid` : Prisma.sql`name = ${idOrName}`;
  const rows = await tx.$queryRaw<{ id: string }[]>`SELECT id FROM host WHERE ${match} FOR UPDATE`;
  const [row] = rows;
  return row === undefined ? null : await getHost(tx, asId<HostId>(row.id));
}

/** Changes settings and raises the generation; credentials only where they are given. */
export async function updateHostSettings(
  tx: Tx,
  id: HostId,
  settings: HostSettings & { readonly credentials?: Uint8Array<ArrayBuffer> },
): Promise<void> {
  await tx.host.update({ where: { id }, data: { ...settings, generation: { increment: 1 } } });
}

/** Changes whether VMs are placed on the host, and raises the generation. */
export async function setSchedulable(tx: Tx, id: HostId, schedulable: boolean): Promise<void> {
  await tx.host.update({ where: { id }, data: { schedulable, generation: { increment: 1 } } });
}

/** Deletes the row with what was observed on the host. VMs, volumes or reservations on it are a foreign key violation. */
export async function deleteHostRow(tx: Tx, id: HostId): Promise<void> {
  await tx.host.delete({ where: { id } });
}

/** What a connection needs, credentials opened. */
export interface HostAccessData {
  readonly id: HostId;
  readonly name: string;
  readonly uri: string;
  readonly accelerator: HostRecord["accelerator"];
  readonly credentials: HostCredentials;
}

export async function hostAccessData(tx: Db, id: HostId, box: SecretBox): Promise<HostAccessData | null> {
  const row = await tx.host.findUnique({
    where: { id },
    select: { id: true, name: true, uri: true, accelerator: true, credentials: true },
  });
  if (row === null) return null;
  return {
    id,
    name: row.name,
    uri: row.uri,
    accelerator: row.accelerator as HostRecord["accelerator"],
    credentials: row.credentials === null ? {} : (JSON.parse(box.open(row.credentials)) as HostCredentials),
  };
}

/** The name of the host whose machine has this UUID, or null. */
export async function hostOfMachine(db: Db, hostUuid: string): Promise<string | null> {
  const row = await db.host.findUnique({ where: { hostUuid }, select: { name: true } });
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
  tx: Db,
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
  const ids = await tx.$queryRaw<{ id: string }[]>`
    SELECT id FROM host WHERE ${Prisma.join(conditions, " AND ")} ORDER BY name LIMIT ${page.limit}`;
  const rows = await tx.host.findMany({
    where: { id: { in: ids.map((row) => row.id) } },
    orderBy: { name: "asc" },
  });
  return rows.map(recordOf);
}

export interface ReservedSum {
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly vmCount: number;
}

/** What VMs have reserved on each of these hosts. */
export async function reservedOn(tx: Db, ids: readonly HostId[]): Promise<Map<string, ReservedSum>> {
  const sums = await tx.reservation.groupBy({
    by: ["hostId"],
    where: { hostId: { in: [...ids] } },
    _sum: { cpuCount: true, memoryMib: true },
    _count: true,
  });
  return new Map(
    sums.map((sum) => [
      sum.hostId,
      { cpuCount: sum._sum.cpuCount ?? 0, memoryMib: sum._sum.memoryMib ?? 0, vmCount: sum._count },
    ]),
  );
}

export async function getHost(db: Db, id: HostId): Promise<HostRecord | null> {
  const row = await db.host.findUnique({ where: { id } });
  return row === null ? null : recordOf(row);
}

/** Whether hosts answer, and when each last gave a complete inventory. */
export async function hostSilence(
  db: Db,
  ids: readonly HostId[],
): Promise<Map<string, { ready: boolean; inventoryAt: Date | null; error: string | null; since: Date }>> {
  const rows = await db.host.findMany({
    where: { id: { in: [...ids] } },
    select: { id: true, state: true, inventoryAt: true, error: true, lastSeenAt: true, createdAt: true },
  });
  return new Map(
    rows.map(({ id, state, inventoryAt, error, lastSeenAt, createdAt }) => {
      const message = (error as ErrorBody | null)?.message ?? null;
      return [id, { ready: state === "ready", inventoryAt, error: message, since: lastSeenAt ?? createdAt }];
    }),
  );
}

/** The VMs on a host. */
export async function vmsOnHost(
  db: Db,
  idOrName: string,
): Promise<{ id: string; name: string; projectId: string }[]> {
  const host = isUuid(idOrName) ? { id: idOrName } : { name: idOrName };
  return await db.vm.findMany({ where: { host }, select: { id: true, name: true, projectId: true } });
}

/** Removes the VMs of a host with their volumes from the inventory, and says which they were. */
export async function deleteHostVms(
  tx: Tx,
  id: HostId,
): Promise<{ id: string; name: string; projectId: string }[]> {
  const vms = await vmsOnHost(tx, id);
  await tx.volume.deleteMany({ where: { hostId: id } });
  await tx.vm.deleteMany({ where: { hostId: id } });
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
export async function domainsOnHost(db: Db, hostId: HostId): Promise<HostDomainRow[]> {
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

import { Prisma } from "../db/generated/client.ts";
import type { Db, Tx } from "../db/transaction.ts";
import type { DriverName, HostCredentials, HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type HostId, isUuid } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import type { HostRecord, HostState } from "./host-record.ts";

type HostRow = NonNullable<Awaited<ReturnType<Db["host"]["findUnique"]>>>;

/** A row as the rest of the program sees it. The columns are written by this program only, so their types are known. */
function recordOf(row: HostRow): HostRecord {
  const { cpuCount, memoryMib } = row;
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
    capacity:
      cpuCount === null || memoryMib === null
        ? null
        : {
            cpuCount,
            memoryMib,
            reserveCpuCount: row.reserveCpuCount,
            reserveMemoryMib: row.reserveMemoryMib,
            cpuOvercommit: row.cpuOvercommit,
            memoryOvercommit: row.memoryOvercommit,
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

export interface HostSettings {
  readonly accelerator: HostRecord["accelerator"];
  readonly labels: Readonly<Record<string, string>>;
  readonly reserveCpuCount: number;
  readonly reserveMemoryMib: number;
  readonly cpuOvercommit: number;
  readonly memoryOvercommit: number;
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

/** Settings as they stand now, whether or not the host ever answered. */
export async function hostSettings(tx: Db, id: HostId): Promise<HostSettings | null> {
  const row = await tx.host.findUnique({ where: { id } });
  if (row === null) return null;
  return {
    accelerator: row.accelerator as HostRecord["accelerator"],
    labels: row.labels as Record<string, string>,
    reserveCpuCount: row.reserveCpuCount,
    reserveMemoryMib: row.reserveMemoryMib,
    cpuOvercommit: row.cpuOvercommit,
    memoryOvercommit: row.memoryOvercommit,
  };
}

/** Changes settings and raises the generation, if it still is what was read. False: somebody was faster. */
export async function updateHostSettings(
  tx: Tx,
  id: HostId,
  generation: number,
  settings: HostSettings & { readonly credentials?: Uint8Array<ArrayBuffer> },
): Promise<boolean> {
  const { count } = await tx.host.updateMany({
    where: { id, generation },
    data: { ...settings, generation: { increment: 1 } },
  });
  return count === 1;
}

export async function setSchedulable(tx: Tx, id: HostId, schedulable: boolean): Promise<void> {
  await tx.host.update({ where: { id }, data: { schedulable } });
}

/** Asks the owner for a probe and an inventory at once; it is seen at the owner's next look at its hosts. */
export async function askRefresh(tx: Tx, id: HostId): Promise<void> {
  await tx.host.update({ where: { id }, data: { refreshAskedAt: new Date() } });
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

export interface HostFilter {
  readonly state?: HostState | undefined;
  readonly hypervisor?: Hypervisor | undefined;
  readonly schedulable?: boolean | undefined;
  readonly labels?: Prisma.Sql | undefined;
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
    filter.labels ?? Prisma.sql`true`,
  ];
  const ids = await tx.$queryRaw<{ id: string }[]>`
    SELECT id FROM host WHERE ${Prisma.join(conditions, " AND ")} ORDER BY name LIMIT ${page.limit}`;
  const rows = await tx.host.findMany({ where: { id: { in: ids.map((row) => row.id) } }, orderBy: { name: "asc" } });
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

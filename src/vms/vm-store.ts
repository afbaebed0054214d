import { Prisma } from "../db/generated/client.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Db, Tx } from "../db/transaction.ts";
import type { GuestType, Hypervisor } from "../hypervisors/hypervisor.ts";
import { asId, type HostId, type ImageId, isUuid, type ProjectId, type VmId } from "../lib/ids.ts";
import type { Condition, VmImageUse, VmPhase, VmPower, VmRecord, VmSpec } from "./vm-record.ts";

/** A row of the list query; the columns are written by this program only. */
interface VmRow {
  id: string;
  project_id: string;
  project_name: string;
  name: string;
  labels: Record<string, string>;
  spec: VmSpec;
  generation: number;
  phase: VmPhase;
  power: VmPower;
  power_reason: string | null;
  host_id: string | null;
  host_name: string | null;
  domain_uuid: string | null;
  domain_name: string | null;
  hypervisor: Hypervisor | null;
  guest_type: GuestType | null;
  pool: string | null;
  observed_at: Date | null;
  observed_generation: number | null;
  addresses: string[];
  conditions: Condition[];
  created_at: Date;
  updated_at: Date;
}

const SELECT = Prisma.sql`
  SELECT v.id, v.project_id, p.name AS project_name, v.name, v.labels, v.spec, v.generation, v.phase, v.power,
         v.power_reason, v.host_id, h.name AS host_name, v.domain_uuid, v.domain_name, v.hypervisor, v.guest_type,
         v.pool, v.observed_at, v.observed_generation, v.addresses, v.conditions, v.created_at, v.updated_at
  FROM vm v JOIN project p ON p.id = v.project_id LEFT JOIN host h ON h.id = v.host_id`;

function recordOf(row: VmRow): VmRecord {
  return {
    id: asId<VmId>(row.id),
    projectId: asId<ProjectId>(row.project_id),
    projectName: row.project_name,
    name: row.name,
    labels: row.labels,
    spec: row.spec,
    generation: row.generation,
    phase: row.phase,
    power: row.power,
    powerReason: row.power_reason,
    hostId: row.host_id === null ? null : asId<HostId>(row.host_id),
    hostName: row.host_name,
    domainUuid: row.domain_uuid,
    domainName: row.domain_name,
    hypervisor: row.hypervisor,
    guestType: row.guest_type,
    pool: row.pool,
    observedAt: row.observed_at,
    observedGeneration: row.observed_generation,
    addresses: row.addresses,
    conditions: row.conditions,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** The VM of this id or name in the project, or null. */
export async function findVm(db: Db, projectId: ProjectId, idOrName: string): Promise<VmRecord | null> {
  const match = isUuid(idOrName) ? Prisma.sql`v.id = ${idOrName}::uuid` : Prisma.sql`v.name = ${idOrName}`;
  const rows = await db.$queryRaw<VmRow[]>`${SELECT} WHERE v.project_id = ${projectId}::uuid AND ${match}`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

/** The VM as it stands, its row locked until the transaction ends; null when it is gone. */
export async function lockVm(tx: Tx, id: VmId): Promise<VmRecord | null> {
  const rows = await tx.$queryRaw<VmRow[]>`${SELECT} WHERE v.id = ${id}::uuid FOR UPDATE OF v`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

export async function getVm(db: Db, id: VmId): Promise<VmRecord | null> {
  const rows = await db.$queryRaw<VmRow[]>`${SELECT} WHERE v.id = ${id}::uuid`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

export interface VmFilter {
  readonly name?: string | undefined;
  readonly power?: VmPower | undefined;
  readonly phase?: VmPhase | undefined;
  readonly host?: string | undefined;
  readonly hypervisor?: Hypervisor | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

export type VmOrder = "name" | "createdAt";

const ORDER_COLUMN = { name: Prisma.sql`v.name`, createdAt: Prisma.sql`v.created_at` } as const;

/** VMs of a project in a keyset order: `after` holds the last page's ordering value and id. */
export async function listVms(
  db: Db,
  projectId: ProjectId,
  filter: VmFilter,
  order: { readonly field: VmOrder; readonly direction: "asc" | "desc" },
  page: { readonly after: { readonly value: string; readonly id: string } | null; readonly limit: number },
): Promise<VmRecord[]> {
  const column = ORDER_COLUMN[order.field];
  const direction = order.direction === "asc" ? Prisma.sql`ASC` : Prisma.sql`DESC`;
  const beyond = order.direction === "asc" ? Prisma.sql`>` : Prisma.sql`<`;
  const cast = order.field === "createdAt" ? Prisma.sql`::timestamptz` : Prisma.empty;
  const conditions = [Prisma.sql`v.project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  if (page.after !== null)
    conditions.push(
      Prisma.sql`(${column}, v.id) ${beyond} (${page.after.value}${cast}, ${page.after.id}::uuid)`,
    );
  const rows = await db.$queryRaw<VmRow[]>`
    ${SELECT} WHERE ${Prisma.join(conditions, " AND ")}
    ORDER BY ${column} ${direction}, v.id ${direction} LIMIT ${page.limit}`;
  return rows.map(recordOf);
}

function conditionsOf(filter: VmFilter): Prisma.Sql[] {
  const conditions: Prisma.Sql[] = [];
  if (filter.name !== undefined) conditions.push(Prisma.sql`v.name = ${filter.name}`);
  if (filter.power !== undefined) conditions.push(Prisma.sql`v.power = ${filter.power}`);
  if (filter.phase !== undefined) conditions.push(Prisma.sql`v.phase = ${filter.phase}`);
  if (filter.hypervisor !== undefined) conditions.push(Prisma.sql`v.hypervisor = ${filter.hypervisor}`);
  if (filter.host !== undefined) {
    const host = filter.host;
    conditions.push(isUuid(host) ? Prisma.sql`v.host_id = ${host}::uuid` : Prisma.sql`h.name = ${host}`);
  }
  if (filter.labels !== undefined) conditions.push(labelCondition(filter.labels, Prisma.sql`v.labels`));
  return conditions;
}

export interface NewVm {
  readonly id: VmId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: VmSpec;
  readonly hostId: HostId;
  readonly domainName: string;
  readonly hypervisor: Hypervisor;
  readonly guestType: GuestType;
  readonly pool: string;
}

/** Writes a new VM in phase `provisioning`. A taken name is a unique violation. */
export async function insertVm(tx: Tx, vm: NewVm): Promise<void> {
  await tx.vm.create({
    data: {
      ...vm,
      spec: vm.spec as unknown as Prisma.InputJsonObject,
      domainUuid: vm.id,
      phase: "provisioning",
    },
  });
}

export async function insertReservation(
  tx: Tx,
  reservation: { vmId: VmId; hostId: HostId; cpuCount: number; memoryMib: number },
): Promise<void> {
  await tx.reservation.create({ data: reservation });
}

export interface Reservation {
  readonly cpuCount: number;
  /** With the VM's overhead. */
  readonly memoryMib: number;
}

export async function reservationOf(tx: Tx, vmId: VmId): Promise<Reservation | null> {
  return await tx.reservation.findUnique({ where: { vmId }, select: { cpuCount: true, memoryMib: true } });
}

/** Sets what a VM takes of its host. To take more, the host's row must be locked and have the room. */
export async function updateReservation(
  tx: Tx,
  vmId: VmId,
  { cpuCount, memoryMib }: Reservation,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE reservation SET cpu_count = ${cpuCount}::int, memory_mib = ${memoryMib}::int
    WHERE vm_id = ${vmId}::uuid AND (cpu_count, memory_mib) <> (${cpuCount}::int, ${memoryMib}::int)`;
}

export interface NicRow {
  readonly name: string;
  readonly network: string;
  readonly macAddress: string;
}

export async function insertNics(tx: Tx, vmId: VmId, nics: readonly NicRow[]): Promise<void> {
  await tx.vmNic.createMany({ data: nics.map((nic, position) => ({ vmId, position, ...nic })) });
}

export async function nicsOf(db: Db, vmId: VmId): Promise<NicRow[]> {
  return await db.vmNic.findMany({
    where: { vmId },
    orderBy: { position: "asc" },
    select: { name: true, network: true, macAddress: true },
  });
}

export async function insertImageUses(
  tx: Tx,
  vmId: VmId,
  uses: readonly { role: string; imageId: ImageId }[],
): Promise<void> {
  await tx.vmImage.createMany({ data: uses.map((use) => ({ vmId, ...use })) });
}

/** The images of each of these VMs. */
export async function imageUses(db: Db, vmIds: readonly VmId[]): Promise<Map<string, VmImageUse[]>> {
  const rows = await db.vmImage.findMany({
    where: { vmId: { in: [...vmIds] } },
    orderBy: { role: "asc" },
    include: { image: { select: { name: true, sha256: true } } },
  });
  const uses = new Map<string, VmImageUse[]>();
  for (const { vmId, role, imageId, image } of rows) {
    const list = uses.get(vmId) ?? [];
    list.push({ role, imageId: asId<ImageId>(imageId), imageName: image.name, sha256: image.sha256 });
    uses.set(vmId, list);
  }
  return uses;
}

/** Spec and labels after a PATCH or an action that sets the run policy: the generation grows. */
export async function updateSpec(
  tx: Tx,
  id: VmId,
  change: { readonly spec?: VmSpec; readonly labels?: Readonly<Record<string, string>> },
): Promise<void> {
  await tx.vm.update({
    where: { id },
    data: {
      ...(change.spec === undefined ? {} : { spec: change.spec as unknown as Prisma.InputJsonObject }),
      ...(change.labels === undefined ? {} : { labels: change.labels }),
      generation: { increment: 1 },
    },
  });
}

export async function setPhase(tx: Tx, id: VmId, phase: VmPhase): Promise<void> {
  await tx.vm.update({ where: { id }, data: { phase } });
}

export async function setConditions(tx: Tx, id: VmId, conditions: readonly Condition[]): Promise<void> {
  await tx.vm.update({
    where: { id },
    data: { conditions: conditions as unknown as Prisma.InputJsonArray },
  });
}

/** The VM is gone from its host: removes it with everything that hung on it. */
export async function deleteVmRows(tx: Tx, id: VmId): Promise<void> {
  await tx.volume.deleteMany({ where: { vmId: id } });
  await tx.vm.deleteMany({ where: { id } });
}

import { Prisma } from "../db/generated/client.ts";
import { type KeysetOrder, type KeysetPage, keysetPage } from "../db/keyset.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { insertEvents, vmEventRows } from "../events/event-store.ts";
import type { AgentState, GuestType, Hypervisor } from "../hypervisors/hypervisor.ts";
import {
  asId,
  type HostId,
  type ImageId,
  type InstallationId,
  isUuid,
  type OperationId,
  type ProjectId,
  type VmId,
} from "../lib/ids.ts";
import { releaseRetained, type VolumeRecord } from "../volumes/volume-store.ts";
import { DOMAIN_NIC, type DomainNicRow } from "./vm-nic-store.ts";
import type {
  Condition,
  DiskPool,
  SeenVmAddress,
  ToldByAgent,
  VmImageUse,
  VmNic,
  VmPhase,
  VmPower,
  VmRecord,
  VmSpec,
  VmSurroundings,
} from "./vm-record.ts";

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
  addresses: SeenVmAddress[];
  agent_state: AgentState | null;
  conditions: Condition[];
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = Prisma.sql`v.id, v.project_id, p.name AS project_name, v.name, v.labels, v.spec, v.generation, v.phase, v.power,
         v.power_reason, v.host_id, h.name AS host_name, v.domain_uuid, v.domain_name, v.hypervisor, v.guest_type,
         v.pool, v.observed_at, v.observed_generation, v.addresses, v.agent_state, v.conditions, v.created_at, v.updated_at`;

const FROM = Prisma.sql`FROM vm v JOIN project p ON p.id = v.project_id LEFT JOIN host h ON h.id = v.host_id`;

const SELECT = Prisma.sql`SELECT ${COLUMNS} ${FROM}`;

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
    agentState: row.agent_state,
    conditions: row.conditions,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** The VM of this id or name in the project, or null. */
export async function findVm(db: Sql, projectId: ProjectId, idOrName: string): Promise<VmRecord | null> {
  const match = isUuid(idOrName) ? Prisma.sql`v.id = ${idOrName}::uuid` : Prisma.sql`v.name = ${idOrName}`;
  const rows = await db.$queryRaw<VmRow[]>`${SELECT} WHERE v.project_id = ${projectId}::uuid AND ${match}`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

/** The VM as it stands, its row locked until the transaction ends; null when it is gone. */
export async function lockVm(tx: Tx, id: VmId): Promise<VmRecord | null> {
  const rows = await tx.$queryRaw<VmRow[]>`${SELECT} WHERE v.id = ${id}::uuid FOR UPDATE OF v`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

export async function getVm(db: Sql, id: VmId): Promise<VmRecord | null> {
  const rows = await db.$queryRaw<VmRow[]>`${SELECT} WHERE v.id = ${id}::uuid`;
  return rows[0] === undefined ? null : recordOf(rows[0]);
}

/** A VM with all that hangs on it, as its host needs it. */
export interface VmWithParts {
  readonly vm: VmRecord;
  /** Boot files and disks, in the order in which the guest sees them. */
  readonly volumes: readonly VolumeRecord[];
  readonly nics: readonly DomainNicRow[];
  readonly images: readonly { readonly role: string; readonly imageId: ImageId }[];
  /** What every domain of ours carries. */
  readonly installationId: InstallationId;
}

interface PartsRow extends VmRow {
  readonly volumes: VolumeRecord[];
  readonly nics: DomainNicRow[];
  readonly images: { readonly role: string; readonly imageId: ImageId }[];
  readonly installation_id: InstallationId;
}

/** One statement for what a step would else ask for in five. Null when the VM is gone. */
export async function getVmWithParts(db: Sql, id: VmId): Promise<VmWithParts | null> {
  const rows = await db.$queryRaw<PartsRow[]>`
    SELECT ${COLUMNS}, (SELECT i.id FROM installation i) AS installation_id,
      coalesce((SELECT jsonb_agg(jsonb_build_object('id', l.id, 'hostId', l.host_id, 'pool', l.pool, 'name', l.name,
                  'role', l.role, 'format', l.format, 'capacityBytes', l.capacity_bytes) ORDER BY l.position, l.name)
                FROM volume l WHERE l.vm_id = v.id), '[]') AS volumes,
      coalesce((SELECT jsonb_agg(${DOMAIN_NIC} ORDER BY n.position)
                FROM vm_nic n WHERE n.vm_id = v.id AND n.attached), '[]') AS nics,
      coalesce((SELECT jsonb_agg(jsonb_build_object('role', u.role, 'imageId', u.image_id))
                FROM vm_image u WHERE u.vm_id = v.id), '[]') AS images
    ${FROM} WHERE v.id = ${id}::uuid`;
  const [row] = rows;
  if (row === undefined) return null;
  const { volumes, nics, images, installation_id: installationId } = row;
  return { vm: recordOf(row), volumes, nics, images, installationId };
}

/** The host that a VM is on, as a subquery. */
export function hostIdOfVm(id: VmId): Prisma.Sql {
  return Prisma.sql`SELECT host_id FROM vm WHERE id = ${id}::uuid`;
}

export interface VmFilter {
  readonly name?: string | undefined;
  readonly power?: VmPower | undefined;
  readonly phase?: VmPhase | undefined;
  readonly host?: string | undefined;
  readonly hypervisor?: Hypervisor | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

/** VMs of a project in a keyset order: `after` holds the last page's ordering value and id. */
export async function listVms(
  db: Sql,
  projectId: ProjectId,
  filter: VmFilter,
  order: KeysetOrder,
  page: KeysetPage,
): Promise<VmRecord[]> {
  const conditions = [Prisma.sql`v.project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  const rows = await db.$queryRaw<VmRow[]>`
    ${SELECT} ${keysetPage(Prisma.sql`v`, conditions, order, page)}`;
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

export interface Reservation {
  readonly cpuCount: number;
  /** With the VM's overhead. */
  readonly memoryMib: number;
}

export async function reservationOf(tx: Tx, vmId: VmId): Promise<Reservation | null> {
  const [row] = await tx.$queryRaw<Reservation[]>`
    SELECT cpu_count AS "cpuCount", memory_mib AS "memoryMib" FROM reservation WHERE vm_id = ${vmId}::uuid`;
  return row ?? null;
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

interface SurroundingsRow {
  readonly disk_pools: DiskPool[];
  readonly images: VmImageUse[];
  readonly nics: VmNic[];
  readonly operations: string[];
  readonly agent: (Omit<ToldByAgent, "toldAt"> & { readonly toldAt: string | null }) | null;
  readonly ready: boolean | null;
  readonly inventory_at: Date | null;
  readonly host_error: string | null;
  readonly silent_since: Date | null;
}

// Beside FROM's `v` and `h`.
const SURROUNDINGS = Prisma.sql`h.state = 'ready' AS ready, h.inventory_at, h.error->>'message' AS host_error,
  coalesce(h.last_seen_at, h.created_at) AS silent_since,
  CASE WHEN v.power_reason = 'ioerror' THEN coalesce((
    SELECT jsonb_agg(jsonb_build_object('pool', p.name, 'availableBytes', p.available_bytes) ORDER BY p.name)
    FROM host_pool p WHERE p.host_id = v.host_id AND p.name IN (SELECT l.pool FROM volume l WHERE l.vm_id = v.id)), '[]')
  ELSE '[]' END AS disk_pools,
  coalesce((SELECT jsonb_agg(jsonb_build_object('role', u.role, 'imageId', i.id, 'imageName', i.name, 'sha256', i.sha256)
                             ORDER BY u.role)
            FROM vm_image u JOIN image i ON i.id = u.image_id WHERE u.vm_id = v.id), '[]') AS images,
  coalesce((SELECT jsonb_agg(jsonb_build_object('name', c.name, 'networkId', c.network_id, 'macAddress', c.mac_address,
                               'network', coalesce((SELECT n.name FROM network n WHERE n.id = c.network_id), c.network),
                               'addresses', coalesce((SELECT jsonb_agg(host(a.address) ORDER BY a.address) FROM network_address a
                                                      WHERE a.vm_id = c.vm_id AND a.nic_name = c.name), '[]'))
                             ORDER BY c.position)
            FROM vm_nic c WHERE c.vm_id = v.id), '[]') AS nics,
  coalesce((SELECT jsonb_agg(s.operation_id ORDER BY s.seq) FROM operation_subject s
            WHERE s.kind = 'vm' AND s.subject_id = v.id AND s.unfinished), '[]') AS operations,
  (SELECT jsonb_build_object('hostName', a.host_name, 'osName', a.os_name, 'kernelRelease', a.kernel_release,
            'error', a.error, 'toldAt', a.told_at) FROM vm_agent a WHERE a.vm_id = v.id) AS agent`;

function surroundingsIn(row: SurroundingsRow): VmSurroundings {
  const {
    images,
    nics,
    operations,
    agent: told,
    disk_pools: diskPools,
    ready,
    inventory_at: inventoryAt,
    host_error: error,
    silent_since: since,
  } = row;
  const host = ready === null || since === null ? null : { ready, inventoryAt, error, since };
  const agent =
    told === null ? null : { ...told, toldAt: told.toldAt === null ? null : new Date(told.toldAt) };
  return { images, nics, operations, agent, host, diskPools };
}

/** What the view of each of these VMs needs beside its record. */
export async function surroundingsOf(db: Sql, ids: readonly VmId[]): Promise<Map<string, VmSurroundings>> {
  const rows = await db.$queryRaw<(SurroundingsRow & { id: string })[]>`
    SELECT v.id, ${SURROUNDINGS} FROM vm v LEFT JOIN host h ON h.id = v.host_id
    WHERE v.id = ANY(${[...ids]}::text[]::uuid[])`;
  return new Map(rows.map((row) => [row.id, surroundingsIn(row)]));
}

/** A VM with what its view needs, in one statement; null when it is gone. */
export async function getVmToView(
  db: Sql,
  id: VmId,
): Promise<{ readonly vm: VmRecord; readonly around: VmSurroundings } | null> {
  const [row] = await db.$queryRaw<(VmRow & SurroundingsRow)[]>`
    SELECT ${COLUMNS}, ${SURROUNDINGS} ${FROM} WHERE v.id = ${id}::uuid`;
  return row === undefined ? null : { vm: recordOf(row), around: surroundingsIn(row) };
}

/** Spec and labels after a PATCH or an action that sets the run policy: the generation grows. */
export async function updateSpec(
  tx: Tx,
  id: VmId,
  change: { readonly spec?: VmSpec; readonly labels?: Readonly<Record<string, string>> },
): Promise<void> {
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
  await tx.$executeRaw`
    UPDATE vm SET spec = coalesce(${json(change.spec)}::jsonb, spec), labels = coalesce(${json(change.labels)}::jsonb, labels),
      generation = generation + 1, updated_at = clock_timestamp()
    WHERE id = ${id}::uuid`;
}

export async function setPhase(tx: Tx, id: VmId, phase: VmPhase): Promise<void> {
  await tx.$executeRaw`UPDATE vm SET phase = ${phase}, updated_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

/**
 * The VM is made: its volumes are there, and what went wrong before is over. One that is being deleted by now keeps its
 * phase.
 */
export async function completeVm(tx: Tx, id: VmId, operationId: OperationId): Promise<void> {
  const ready = Prisma.sql`made AS c WHERE c.phase = 'provisioning'`;
  await tx.$executeRaw`
    WITH made AS (
      UPDATE vm SET phase = CASE old.phase WHEN 'provisioning' THEN 'ready' ELSE old.phase END,
        conditions = jsonb_path_query_array(vm.conditions, '$[*] ? (@.type != "OperationFailed" && @.type != "AttentionRequired")'),
        updated_at = clock_timestamp()
      FROM (SELECT id, phase FROM vm WHERE id = ${id}::uuid FOR NO KEY UPDATE) AS old WHERE vm.id = old.id
      RETURNING vm.id, vm.name, vm.project_id, old.phase),
    volumes AS (UPDATE volume SET state = 'ready' FROM made WHERE vm_id = made.id)
    ${insertEvents([vmEventRows("vm.ready", ready, operationId, Prisma.sql`'{}'::jsonb`)])}`;
}

export async function setConditions(tx: Tx, id: VmId, conditions: readonly Condition[]): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm SET conditions = ${JSON.stringify(conditions)}::jsonb, updated_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

/** The VM is gone from its host: removes it with everything that hung on it. Volumes that are to be retained stay. */
export async function deleteVmRows(tx: Tx, id: VmId): Promise<void> {
  await releaseRetained(tx, id);
  await tx.$executeRaw`DELETE FROM volume WHERE vm_id = ${id}::uuid`;
  await tx.$executeRaw`DELETE FROM vm WHERE id = ${id}::uuid`;
}

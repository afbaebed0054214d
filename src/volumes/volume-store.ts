import { Prisma } from "../db/generated/client.ts";
import { type KeysetOrder, type KeysetPage, keysetPage } from "../db/keyset.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type HostId, isUuid, type ProjectId, type VmId, type VolumeId } from "../lib/ids.ts";
import {
  type DeletePolicy,
  FREE_ROLE,
  type VolumeDetails,
  type VolumeRecord,
  type VolumeSource,
  type VolumeState,
} from "./volume-record.ts";

export type { VolumeRecord } from "./volume-record.ts";

/** A volume that is written with its VM, on the VM's host and in its pool. */
export interface NewVolume extends Omit<VolumeRecord, "hostId" | "pool"> {
  readonly position: number;
  readonly deletePolicy: DeletePolicy;
}

// A capacity is exact in a double up to 8 PiB.
const RECORD = Prisma.sql`id, host_id AS "hostId", pool, name, role, format, capacity_bytes::float8 AS "capacityBytes"`;

/** The volumes of a VM, boot files and disks, in the order in which the guest sees them. */
export async function volumesOf(db: Sql, vmId: VmId): Promise<VolumeRecord[]> {
  return await db.$queryRaw<VolumeRecord[]>`
    SELECT ${RECORD} FROM volume WHERE vm_id = ${vmId}::uuid ORDER BY position, name`;
}

/** A row of the list query; the columns are written by this program only. */
interface VolumeRow {
  id: string;
  project_id: string;
  own_name: string | null;
  labels: Record<string, string>;
  generation: number;
  host_id: string;
  host_name: string;
  pool: string;
  name: string;
  vm: { id: VmId; name: string; phase: string } | null;
  role: string;
  position: number;
  format: VolumeFormat;
  capacity_bytes: number;
  allocation_bytes: number | null;
  observed_at: Date | null;
  state: VolumeState;
  error: ErrorBody | null;
  delete_policy: DeletePolicy;
  source: VolumeSource;
  orphan_since: Date | null;
  created_at: Date;
  updated_at: Date;
}

// What a VM's own volume was filled from stands with the VM, for as long as it is the VM's.
const SELECT = Prisma.sql`
  SELECT l.id, l.project_id, l.own_name, l.labels, l.generation, l.host_id, h.name AS host_name, l.pool, l.name,
    CASE WHEN v.id IS NULL THEN NULL ELSE jsonb_build_object('id', v.id, 'name', v.name, 'phase', v.phase) END AS vm,
    l.role, l.position, l.format, l.capacity_bytes::float8 AS capacity_bytes,
    l.allocation_bytes::float8 AS allocation_bytes, l.observed_at, l.state, l.error, l.delete_policy,
    coalesce((SELECT jsonb_build_object('kind', 'image', 'image', u.image_id) FROM vm_image u
              WHERE u.vm_id = l.vm_id AND u.role = l.role), l.source) AS source,
    l.orphan_since, l.created_at, l.updated_at
  FROM volume l JOIN host h ON h.id = l.host_id LEFT JOIN vm v ON v.id = l.vm_id`;

function detailsOf(row: VolumeRow): VolumeDetails {
  return {
    id: asId<VolumeId>(row.id),
    projectId: asId<ProjectId>(row.project_id),
    ownName: row.own_name,
    labels: row.labels,
    generation: row.generation,
    hostId: asId<HostId>(row.host_id),
    hostName: row.host_name,
    pool: row.pool,
    name: row.name,
    vm: row.vm,
    role: row.role,
    position: row.position,
    format: row.format,
    capacityBytes: row.capacity_bytes,
    allocationBytes: row.allocation_bytes,
    observedAt: row.observed_at,
    state: row.state,
    error: row.error,
    deletePolicy: row.delete_policy,
    source: row.source,
    orphanSince: row.orphan_since,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

async function one(db: Sql, condition: Prisma.Sql, lock = Prisma.empty): Promise<VolumeDetails | null> {
  const [row] = await db.$queryRaw<VolumeRow[]>`${SELECT} WHERE ${condition} ${lock}`;
  return row === undefined ? null : detailsOf(row);
}

/** The volume of this id or name in the project, or null. */
export async function findVolume(
  db: Sql,
  projectId: ProjectId,
  idOrName: string,
): Promise<VolumeDetails | null> {
  const match = isUuid(idOrName)
    ? Prisma.sql`l.id = ${idOrName}::uuid`
    : Prisma.sql`l.own_name = ${idOrName}`;
  return await one(db, Prisma.sql`l.project_id = ${projectId}::uuid AND ${match}`);
}

export async function getVolume(db: Sql, id: VolumeId): Promise<VolumeDetails | null> {
  return await one(db, Prisma.sql`l.id = ${id}::uuid`);
}

/** The volume as it stands, its row locked until the transaction ends; null when it is gone. */
export async function lockVolume(tx: Tx, id: VolumeId): Promise<VolumeDetails | null> {
  return await one(tx, Prisma.sql`l.id = ${id}::uuid`, Prisma.sql`FOR UPDATE OF l`);
}

/** The host that a volume is on, as a subquery. */
export function hostIdOfVolume(id: VolumeId): Prisma.Sql {
  return Prisma.sql`SELECT host_id FROM volume WHERE id = ${id}::uuid`;
}

export interface VolumeFilter {
  readonly host?: string | undefined;
  readonly pool?: string | undefined;
  readonly vm?: string | undefined;
  readonly attached?: boolean | undefined;
  readonly orphan?: boolean | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

/** Volumes of a project in the order of their making: those after the position where the last page ended. */
export async function listVolumes(
  db: Sql,
  projectId: ProjectId,
  filter: VolumeFilter,
  direction: KeysetOrder["direction"],
  page: KeysetPage,
): Promise<VolumeDetails[]> {
  const order = { field: "createdAt", direction } as const;
  const conditions = [Prisma.sql`l.project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  const rows = await db.$queryRaw<
    VolumeRow[]
  >`${SELECT} ${keysetPage(Prisma.sql`l`, conditions, order, page)}`;
  return rows.map(detailsOf);
}

function conditionsOf({ host, pool, vm, attached, orphan, labels }: VolumeFilter): Prisma.Sql[] {
  const named = (idOrName: string, id: Prisma.Sql, name: Prisma.Sql): Prisma.Sql =>
    isUuid(idOrName) ? Prisma.sql`${id} = ${idOrName}::uuid` : Prisma.sql`${name} = ${idOrName}`;
  return [
    ...(host === undefined ? [] : [named(host, Prisma.sql`l.host_id`, Prisma.sql`h.name`)]),
    ...(pool === undefined ? [] : [Prisma.sql`l.pool = ${pool}`]),
    ...(vm === undefined ? [] : [named(vm, Prisma.sql`l.vm_id`, Prisma.sql`v.name`)]),
    ...(attached === undefined ? [] : [Prisma.sql`(l.vm_id IS NOT NULL) = ${attached}::boolean`]),
    ...(orphan === undefined ? [] : [Prisma.sql`(l.orphan_since IS NOT NULL) = ${orphan}::boolean`]),
    ...(labels === undefined ? [] : [labelCondition(labels, Prisma.sql`l.labels`)]),
  ];
}

/** What a client changed: the generation grows. An orphan that somebody cares for is one no more. */
export async function updateVolumeSettings(
  tx: Tx,
  id: VolumeId,
  { labels, deletePolicy }: Pick<VolumeDetails, "labels" | "deletePolicy">,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE volume SET labels = ${JSON.stringify(labels)}::jsonb, delete_policy = ${deletePolicy}, orphan_since = NULL,
      generation = generation + 1, updated_at = clock_timestamp()
    WHERE id = ${id}::uuid`;
}

/** Which of these names in pools have a row, on whatever host: pools may be shared. */
export async function knownNames(db: Sql, names: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.$queryRaw<{ name: string }[]>`
    SELECT name FROM volume WHERE name = ANY(${[...names]}::text[]) AND orphan_since IS NULL`;
  return new Set(rows.map(({ name }) => name));
}

/** Marks the volumes that go with their VM, so that none of them is retained any more, and says which they are. */
export async function doomVolumes(tx: Tx, vmId: VmId): Promise<VolumeRecord[]> {
  await tx.$executeRaw`
    UPDATE volume SET state = 'deleting', updated_at = clock_timestamp()
    WHERE vm_id = ${vmId}::uuid AND (delete_policy = 'delete' OR state <> 'ready')`;
  return await tx.$queryRaw<VolumeRecord[]>`
    SELECT ${RECORD} FROM volume WHERE vm_id = ${vmId}::uuid AND state = 'deleting' ORDER BY position, name`;
}

/** Where a disk's content came from is kept with it when it leaves its VM. */
const SOURCE_TO_KEEP = Prisma.sql`coalesce((SELECT jsonb_build_object('kind', 'image', 'image', u.image_id)
  FROM vm_image u WHERE u.vm_id = volume.vm_id AND u.role = volume.role), source)`;

/** Sets the volumes of a VM that are to be retained free, in its last moment. Those that were never made go with it. */
export async function releaseRetained(tx: Tx, vmId: VmId): Promise<void> {
  await tx.$executeRaw`
    UPDATE volume SET source = ${SOURCE_TO_KEEP}, vm_id = NULL, role = ${FREE_ROLE}, position = 0,
      updated_at = clock_timestamp()
    WHERE vm_id = ${vmId}::uuid AND delete_policy = 'retain' AND state = 'ready'`;
}

/** A volume that is to be made without a VM. */
export interface NewFreeVolume extends VolumeRecord {
  readonly projectId: ProjectId;
  readonly ownName: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly deletePolicy: DeletePolicy;
  readonly source: VolumeSource;
  readonly imageId: string | null;
}

/** Writes it in state `planned`. A taken name is a unique violation, an image that is gone a foreign key's. */
export async function insertVolume(tx: Tx, volume: NewFreeVolume): Promise<void> {
  const { id, projectId, ownName, labels, hostId, pool, name, role, format, capacityBytes } = volume;
  await tx.$executeRaw`
    INSERT INTO volume (id, project_id, own_name, labels, host_id, pool, name, role, format, capacity_bytes,
                        delete_policy, source, image_id)
    VALUES (${id}::uuid, ${projectId}::uuid, ${ownName}, ${JSON.stringify(labels)}::jsonb, ${hostId}::uuid, ${pool},
            ${name}, ${role}, ${format}, ${capacityBytes}, ${volume.deletePolicy},
            ${JSON.stringify(volume.source)}::jsonb, ${volume.imageId}::uuid)`;
}

/** What came of making or deleting it. From then on it needs no image any more. */
export async function setVolumeState(
  tx: Tx,
  id: VolumeId,
  state: VolumeState,
  error: ErrorBody | null,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE volume SET state = ${state}, error = ${error === null ? null : JSON.stringify(error)}::jsonb,
      image_id = NULL, updated_at = clock_timestamp()
    WHERE id = ${id}::uuid`;
}

export async function deleteVolumeRow(tx: Tx, id: VolumeId): Promise<void> {
  await tx.$executeRaw`DELETE FROM volume WHERE id = ${id}::uuid`;
}

export interface PoolRoom {
  readonly host: string;
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

/** What a pool had when its host was last seen; null: it had no such pool. */
export async function poolRoom(db: Sql, hostId: HostId, pool: string): Promise<PoolRoom | null> {
  const [row] = await db.$queryRaw<PoolRoom[]>`
    SELECT h.name AS host, p.capacity_bytes::float8 AS "capacityBytes", p.available_bytes::float8 AS "availableBytes"
    FROM host_pool p JOIN host h ON h.id = p.host_id WHERE p.host_id = ${hostId}::uuid AND p.name = ${pool}`;
  return row ?? null;
}

/** A pool with what must be known of its host to choose it. */
export interface PoolCandidate {
  readonly hostId: HostId;
  readonly host: string;
  /** `ready`, `connecting`, `unreachable`. */
  readonly hostState: string;
  readonly schedulable: boolean;
  /** Whether its host makes volumes. */
  readonly able: boolean;
  readonly pool: string;
  readonly active: boolean;
  readonly type: string;
  readonly availableBytes: number;
}

/** Every pool of every host, or of one. */
export async function poolCandidates(db: Sql, host: string | null): Promise<PoolCandidate[]> {
  const which =
    host === null
      ? Prisma.sql`true`
      : isUuid(host)
        ? Prisma.sql`h.id = ${host}::uuid`
        : Prisma.sql`h.name = ${host}`;
  return await db.$queryRaw<PoolCandidate[]>`
    SELECT h.id AS "hostId", h.name AS host, h.state AS "hostState", h.schedulable, p.name AS pool, p.active, p.type,
      p.available_bytes::float8 AS "availableBytes",
      coalesce(jsonb_path_exists(h.facts, '$.guestTypes[*].capabilities[*] ? (@ == "volumes")'), false) AS able
    FROM host_pool p JOIN host h ON h.id = p.host_id WHERE ${which} ORDER BY h.name, p.name`;
}

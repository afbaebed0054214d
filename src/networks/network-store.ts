import { Prisma } from "../db/generated/client.ts";
import { type KeysetOrder, type KeysetPage, keysetPage } from "../db/keyset.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { asId, type HostId, isUuid, type NetworkId, type ProjectId } from "../lib/ids.ts";
import type { NetworkKind, NetworkRecord, NetworkUse } from "./network-record.ts";

interface NetworkRow {
  readonly id: string;
  readonly project_id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly kind: NetworkKind;
  readonly state: NetworkRecord["state"];
  readonly ipv4_cidr: string | null;
  readonly ipv4_gateway: string | null;
  readonly ipv4_range_start: string | null;
  readonly ipv4_range_end: string | null;
  readonly ipv6_cidr: string | null;
  readonly ipv6_gateway: string | null;
  readonly bridge: string | null;
  readonly vlan: number | null;
  readonly host_labels: Readonly<Record<string, string>> | null;
  readonly created_at: Date;
  readonly updated_at: Date;
}

// host() drops the prefix, which text would show where it is not that of one address.
const COLUMNS = Prisma.sql`n.id, n.project_id, n.name, n.labels, n.generation, n.kind, n.state, n.ipv4_cidr::text,
  host(n.ipv4_gateway) AS ipv4_gateway, host(n.ipv4_range_start) AS ipv4_range_start,
  host(n.ipv4_range_end) AS ipv4_range_end, n.ipv6_cidr::text, host(n.ipv6_gateway) AS ipv6_gateway, n.bridge, n.vlan,
  n.host_labels, n.created_at, n.updated_at`;

function recordOf(row: NetworkRow): NetworkRecord {
  const { ipv4_cidr: cidr, ipv4_range_start: start, ipv4_range_end: end, ipv6_cidr: cidr6 } = row;
  return {
    id: asId<NetworkId>(row.id),
    projectId: asId<ProjectId>(row.project_id),
    name: row.name,
    labels: row.labels,
    generation: row.generation,
    kind: row.kind,
    state: row.state,
    ipv4:
      cidr === null || start === null || end === null
        ? null
        : { cidr, gateway: row.ipv4_gateway, range: { start, end } },
    ipv6: cidr6 === null ? null : { cidr: cidr6, gateway: row.ipv6_gateway },
    bridge: row.bridge,
    vlan: row.vlan,
    hostLabels: row.host_labels,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

export type NewNetwork = Omit<NetworkRecord, "generation" | "state" | "createdAt" | "updatedAt">;

/** A taken name is a unique violation, a subnet that overlaps another network's an exclusion violation. */
export async function insertNetwork(tx: Tx, network: NewNetwork): Promise<NetworkRecord> {
  const { ipv4, ipv6, hostLabels } = network;
  return written(
    await tx.$queryRaw<NetworkRow[]>`
      INSERT INTO network AS n (id, project_id, name, labels, kind, ipv4_cidr, ipv4_gateway, ipv4_range_start,
        ipv4_range_end, ipv6_cidr, ipv6_gateway, bridge, vlan, host_labels, updated_at)
      VALUES (${network.id}::uuid, ${network.projectId}::uuid, ${network.name}, ${JSON.stringify(network.labels)}::jsonb,
        ${network.kind}, ${ipv4?.cidr ?? null}::inet, ${ipv4?.gateway ?? null}::inet, ${ipv4?.range.start ?? null}::inet,
        ${ipv4?.range.end ?? null}::inet, ${ipv6?.cidr ?? null}::inet, ${ipv6?.gateway ?? null}::inet,
        ${network.bridge}, ${network.vlan}::int, ${hostLabels === null ? null : JSON.stringify(hostLabels)}::jsonb, now())
      RETURNING ${COLUMNS}`,
  );
}

function named(projectId: ProjectId, idOrName: string): Prisma.Sql {
  const match = isUuid(idOrName) ? Prisma.sql`n.id = ${idOrName}::uuid` : Prisma.sql`n.name = ${idOrName}`;
  return Prisma.sql`n.project_id = ${projectId}::uuid AND ${match}`;
}

/** The network of this id or name in the project, or null. */
export async function findNetwork(
  db: Sql,
  projectId: ProjectId,
  idOrName: string,
): Promise<NetworkRecord | null> {
  const [row] = await db.$queryRaw<NetworkRow[]>`
    SELECT ${COLUMNS} FROM network n WHERE ${named(projectId, idOrName)}`;
  return row === undefined ? null : recordOf(row);
}

/** The same, its row locked until the transaction ends, against new NICs too. */
export async function lockNetwork(
  tx: Tx,
  projectId: ProjectId,
  idOrName: string,
): Promise<NetworkRecord | null> {
  const [row] = await tx.$queryRaw<NetworkRow[]>`
    SELECT ${COLUMNS} FROM network n WHERE ${named(projectId, idOrName)} FOR UPDATE`;
  return row === undefined ? null : recordOf(row);
}

export async function getNetwork(db: Sql, id: NetworkId): Promise<NetworkRecord | null> {
  const [row] = await db.$queryRaw<NetworkRow[]>`SELECT ${COLUMNS} FROM network n WHERE n.id = ${id}::uuid`;
  return row === undefined ? null : recordOf(row);
}

/** Those of these ids and names that the project has, in no order. */
export async function findNetworks(
  db: Sql,
  projectId: ProjectId,
  idsAndNames: readonly string[],
): Promise<NetworkRecord[]> {
  if (idsAndNames.length === 0) return [];
  const ids = idsAndNames.filter(isUuid);
  const rows = await db.$queryRaw<NetworkRow[]>`
    SELECT ${COLUMNS} FROM network n WHERE n.project_id = ${projectId}::uuid
      AND (n.name = ANY(${[...idsAndNames]}::text[]) OR n.id = ANY(${ids}::text[]::uuid[]))`;
  return rows.map(recordOf);
}

/**
 * Locks networks for the addresses that are to be taken in them, until the transaction ends, always in the same order.
 * Those that are gone are left out.
 */
export async function lockForAddresses(tx: Tx, ids: readonly NetworkId[]): Promise<NetworkRecord[]> {
  const rows = await tx.$queryRaw<NetworkRow[]>`
    SELECT ${COLUMNS} FROM network n WHERE n.id = ANY(${[...ids]}::text[]::uuid[]) ORDER BY n.id
    FOR NO KEY UPDATE`;
  return rows.map(recordOf);
}

/** The addresses of a network that NICs have. Read under the network's lock this is what is taken. */
export async function takenAddresses(tx: Tx, id: NetworkId): Promise<readonly string[]> {
  const rows = await tx.$queryRaw<{ address: string }[]>`
    SELECT host(address) AS address FROM network_address WHERE network_id = ${id}::uuid`;
  return rows.map(({ address }) => address);
}

export async function updateNetworkLabels(
  tx: Tx,
  id: NetworkId,
  labels: Readonly<Record<string, string>>,
): Promise<NetworkRecord> {
  return written(
    await tx.$queryRaw<NetworkRow[]>`
      UPDATE network n SET labels = ${JSON.stringify(labels)}::jsonb, generation = generation + 1, updated_at = now()
      WHERE n.id = ${id}::uuid RETURNING ${COLUMNS}`,
  );
}

export async function setNetworkState(
  tx: Tx,
  id: NetworkId,
  state: NetworkRecord["state"],
): Promise<NetworkRecord> {
  return written(
    await tx.$queryRaw<NetworkRow[]>`
      UPDATE network n SET state = ${state}, updated_at = now() WHERE n.id = ${id}::uuid RETURNING ${COLUMNS}`,
  );
}

/** Removes a network that is on no host and that no NIC uses: else a foreign key's violation. */
export async function deleteNetworkRow(tx: Tx, id: NetworkId): Promise<void> {
  await tx.$executeRaw`DELETE FROM network WHERE id = ${id}::uuid`;
}

/** A host that may have these networks from now on. */
export async function addNetworksToHost(tx: Tx, hostId: HostId, ids: readonly NetworkId[]): Promise<void> {
  if (ids.length === 0) return;
  await tx.$executeRaw`
    INSERT INTO network_host (network_id, host_id)
    SELECT id, ${hostId}::uuid FROM unnest(${[...ids]}::text[]::uuid[]) AS n(id) ON CONFLICT DO NOTHING`;
}

/**
 * The network was taken off the host. A VM that was placed there meanwhile waits for that, and will make it anew: then
 * the host keeps it. Locks the network's row first, as who places does, so that none of both overlooks the other.
 */
export async function removeFromHostIfUnused(tx: Tx, id: NetworkId, hostId: HostId): Promise<void> {
  await tx.$executeRaw`SELECT 1 FROM network WHERE id = ${id}::uuid FOR NO KEY UPDATE`;
  await tx.$executeRaw`
    DELETE FROM network_host WHERE network_id = ${id}::uuid AND host_id = ${hostId}::uuid
      AND NOT EXISTS (SELECT FROM vm_nic c JOIN vm v ON v.id = c.vm_id
                      WHERE c.network_id = ${id}::uuid AND v.host_id = ${hostId}::uuid)`;
}

/** VMs that have a NIC in the network, on the given host or anywhere, the first few by name. */
export async function vmsUsingNetwork(
  db: Sql,
  id: NetworkId,
  hostId: HostId | null,
  limit: number,
): Promise<string[]> {
  const where = hostId === null ? Prisma.sql`true` : Prisma.sql`v.host_id = ${hostId}::uuid`;
  const rows = await db.$queryRaw<{ name: string }[]>`
    SELECT DISTINCT v.name FROM vm_nic c JOIN vm v ON v.id = c.vm_id
    WHERE c.network_id = ${id}::uuid AND ${where} ORDER BY v.name LIMIT ${limit}::int`;
  return rows.map(({ name }) => name);
}

/** What hangs on each of these networks. */
export async function usesOf(
  db: Sql,
  ids: readonly NetworkId[],
): Promise<ReadonlyMap<NetworkId, NetworkUse>> {
  const rows = await db.$queryRaw<{ id: NetworkId; hosts: NetworkUse["hosts"]; addresses: number }[]>`
    SELECT n.id,
      coalesce((SELECT jsonb_agg(jsonb_build_object('id', h.id, 'name', h.name) ORDER BY h.name)
                FROM network_host x JOIN host h ON h.id = x.host_id WHERE x.network_id = n.id), '[]') AS hosts,
      (SELECT count(*)::int FROM network_address a WHERE a.network_id = n.id) AS addresses
    FROM network n WHERE n.id = ANY(${[...ids]}::text[]::uuid[])`;
  return new Map(rows.map(({ id, hosts, addresses }) => [id, { hosts, addresses }]));
}

/** The hosts that carry all of these labels. */
export async function hostsLabelled(
  db: Sql,
  labels: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  const rows = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM host WHERE labels @> ${JSON.stringify(labels)}::jsonb`;
  return rows.map(({ id }) => id);
}

export interface NetworkFilter {
  readonly name?: string | undefined;
  readonly kind?: NetworkKind | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

/** Networks of a project in a keyset order: `after` holds the last page's ordering value and id. */
export async function listNetworks(
  db: Sql,
  projectId: ProjectId,
  filter: NetworkFilter,
  order: KeysetOrder,
  page: KeysetPage,
): Promise<NetworkRecord[]> {
  const conditions = [Prisma.sql`n.project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  const rows = await db.$queryRaw<NetworkRow[]>`
    SELECT ${COLUMNS} FROM network n ${keysetPage(Prisma.sql`n`, conditions, order, page)}`;
  return rows.map(recordOf);
}

function conditionsOf({ name, kind, labels }: NetworkFilter): Prisma.Sql[] {
  const conditions: Prisma.Sql[] = [];
  if (name !== undefined) conditions.push(Prisma.sql`n.name = ${name}`);
  if (kind !== undefined) conditions.push(Prisma.sql`n.kind = ${kind}`);
  if (labels !== undefined) conditions.push(labelCondition(labels, Prisma.sql`n.labels`));
  return conditions;
}

function written([row]: readonly NetworkRow[]): NetworkRecord {
  if (row === undefined) throw new Error("a network was written, and no row came back");
  return recordOf(row);
}

import { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { insertEvents, vmEventRows } from "../events/event-store.ts";
import type { DomainNic, SeenAddress } from "../hypervisors/hypervisor.ts";
import type { HostId, InstallationId, NetworkId, VmId } from "../lib/ids.ts";
import type { NetworkRecord } from "../networks/network-record.ts";
import { getNetwork } from "../networks/network-store.ts";
import type { VmNicSpec } from "./vm-record.ts";

/** A NIC as it is written. */
export interface NicRow {
  readonly name: string;
  /** The network's name on the host. */
  readonly network: string;
  /** The network of the project; null: one that the host has by itself. */
  readonly networkId: NetworkId | null;
  readonly macAddress: string;
  readonly allowSpoofing: boolean;
  /** Addresses that it has in the project's network for as long as it exists. */
  readonly addresses: readonly string[];
}

/** NICs as parts of a statement that has the VM's row as `v`, with its `id`. */
export function insertNicParts(
  nics: readonly NicRow[],
  { firstPosition = 0, attached = true } = {},
): readonly Prisma.Sql[] {
  if (nics.length === 0) return [];
  const rows = nics.map((nic, index) => ({ ...nic, position: firstPosition + index }));
  const addresses = nics.flatMap(({ name, networkId, addresses }) =>
    addresses.map((address) => ({ nic: name, networkId, address })),
  );
  const inserted = Prisma.sql`c AS (
    INSERT INTO vm_nic (vm_id, name, position, network, network_id, mac_address, attached, allow_spoofing)
    SELECT v.id, n.name, n.position, n.network, n."networkId", n."macAddress", ${attached}::boolean, n."allowSpoofing"
    FROM v, jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      AS n(name text, position int, network text, "networkId" uuid, "macAddress" text, "allowSpoofing" boolean))`;
  if (addresses.length === 0) return [inserted];
  return [
    inserted,
    Prisma.sql`a AS (
      INSERT INTO network_address (network_id, address, vm_id, nic_name)
      SELECT n."networkId", n.address::inet, v.id, n.nic
      FROM v, jsonb_to_recordset(${JSON.stringify(addresses)}::jsonb) AS n("networkId" uuid, address text, nic text))`,
  ];
}

/** Adds a NIC to a VM that exists, behind those that it has; what defines the VM leaves it out until it is attached. A taken name or MAC address is a unique violation. */
export async function insertNic(tx: Tx, vmId: VmId, nic: NicRow): Promise<void> {
  const [last] = await tx.$queryRaw<{ position: number }[]>`
    SELECT coalesce(max(position), -1) + 1 AS position FROM vm_nic WHERE vm_id = ${vmId}::uuid`;
  const parts = [
    Prisma.sql`v AS (SELECT ${vmId}::uuid AS id)`,
    ...insertNicParts([nic], { firstPosition: last?.position ?? 0, attached: false }),
  ];
  await tx.$executeRaw`WITH ${Prisma.join(parts, ", ")} SELECT 1`;
}

export async function setNicAttached(tx: Tx, vmId: VmId, name: string): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm_nic SET attached = true WHERE vm_id = ${vmId}::uuid AND name = ${name} AND NOT attached`;
}

/** A NIC as its host sees it, attached or not; null: there is no such NIC. */
export async function domainNicOf(db: Sql, vmId: VmId, name: string): Promise<DomainNic | null> {
  const [row] = await db.$queryRaw<{ nic: DomainNicRow }[]>`
    SELECT ${DOMAIN_NIC} AS nic FROM vm_nic n WHERE n.vm_id = ${vmId}::uuid AND n.name = ${name}`;
  return row === undefined ? null : domainNic(row.nic);
}

/** The columns of a NIC as its host sees it, of `vm_nic n`. */
export const DOMAIN_NIC = Prisma.sql`jsonb_build_object('name', n.name, 'network', n.network,
  'macAddress', n.mac_address, 'allowSpoofing', n.allow_spoofing,
  'addresses', coalesce((SELECT jsonb_agg(host(a.address) ORDER BY a.address) FROM network_address a
                         WHERE a.vm_id = n.vm_id AND a.nic_name = n.name), '[]'))`;

export type DomainNicRow = Omit<NicRow, "networkId">;

/** A NIC that is not allowed to spoof is guarded by the addresses that it has, where it has any. */
export function domainNic({ name, network, macAddress, allowSpoofing, addresses }: DomainNicRow): DomainNic {
  return { name, network, macAddress, ...(allowSpoofing ? {} : { guard: { addresses } }) };
}

export async function deleteNicRow(tx: Tx, vmId: VmId, name: string): Promise<void> {
  await tx.$executeRaw`DELETE FROM vm_nic WHERE vm_id = ${vmId}::uuid AND name = ${name}`;
}

/** How many NICs a VM has, those included that are being taken out. */
export async function nicCount(tx: Tx, vmId: VmId): Promise<number> {
  const [row] = await tx.$queryRaw<{ count: number }[]>`
    SELECT count(*)::int AS count FROM vm_nic WHERE vm_id = ${vmId}::uuid`;
  return row?.count ?? 0;
}

/** Whether a NIC is in a network of the project; null: there is no such NIC. */
export async function isManagedNic(tx: Tx, vmId: VmId, name: string): Promise<boolean | null> {
  const [row] = await tx.$queryRaw<{ managed: boolean }[]>`
    SELECT network_id IS NOT NULL AS managed FROM vm_nic WHERE vm_id = ${vmId}::uuid AND name = ${name}`;
  return row?.managed ?? null;
}

/** A NIC as a spec would ask for it to be made again just so; null: there is no such NIC. */
export async function nicSpecOfRow(tx: Tx, vmId: VmId, name: string): Promise<VmNicSpec | null> {
  const [row] = await tx.$queryRaw<(VmNicSpec & { readonly networkName: string | null })[]>`
    SELECT c.name, c.network, c.allow_spoofing AS "allowSpoofing", (SELECT n.name FROM network n WHERE n.id = c.network_id) AS "networkName",
      c.mac_address AS "macAddress"
    FROM vm_nic c WHERE c.vm_id = ${vmId}::uuid AND c.name = ${name}`;
  if (row === undefined) return null;
  const { networkName, network, ...nic } = row;
  return { ...nic, network: networkName ?? network };
}

/** A NIC in a network of the project, with all that its host needs of it. */
export interface ManagedNic {
  readonly name: string;
  readonly macAddress: string;
  readonly ipv4Address: string | null;
  readonly network: NetworkRecord;
  /** What everything of ours on a host carries. */
  readonly installationId: InstallationId;
}

/** The NICs of a VM that are in networks of the project, in their order. */
export async function managedNicsOf(db: Sql, vmId: VmId): Promise<readonly ManagedNic[]> {
  const rows = await db.$queryRaw<(Omit<ManagedNic, "network"> & { readonly networkId: NetworkId })[]>`
    SELECT c.name, c.mac_address AS "macAddress", c.network_id AS "networkId",
      (SELECT i.id FROM installation i) AS "installationId",
      (SELECT host(a.address) FROM network_address a
       WHERE a.vm_id = c.vm_id AND a.nic_name = c.name AND family(a.address) = 4) AS "ipv4Address"
    FROM vm_nic c WHERE c.vm_id = ${vmId}::uuid AND c.network_id IS NOT NULL ORDER BY c.position`;
  const networks = new Map<NetworkId, NetworkRecord>();
  for (const id of new Set(rows.map(({ networkId }) => networkId))) {
    const network = await getNetwork(db, id);
    if (network !== null) networks.set(id, network);
  }
  return rows.flatMap(({ networkId, ...nic }) => {
    const network = networks.get(networkId);
    return network === undefined ? [] : [{ ...nic, network }];
  });
}

/** Those of these MAC addresses that NICs have. */
export async function takenMacAddresses(
  tx: Tx,
  macAddresses: readonly string[],
): Promise<ReadonlySet<string>> {
  if (macAddresses.length === 0) return new Set();
  const rows = await tx.$queryRaw<{ mac: string }[]>`
    SELECT mac_address AS mac FROM vm_nic WHERE mac_address = ANY(${[...macAddresses]}::text[])`;
  return new Set(rows.map(({ mac }) => mac));
}

/**
 * Writes which addresses the VMs of a host were seen to have, where that differs. One that is off has none: what a
 * DHCP server remembers of it is of the past. An address is told of once, by the best source.
 */
export async function applyAddresses(
  tx: Tx,
  hostId: HostId,
  seen: readonly SeenAddress[],
  observedAt: Date,
): Promise<void> {
  const macs = [...new Set(seen.map(({ macAddress }) => macAddress))];
  const data = Prisma.sql`jsonb_build_object('addresses', c.addresses)`;
  await tx.$executeRaw`
    WITH seen AS (
      SELECT DISTINCT ON (n.vm_id, n.name, s.address) n.vm_id, n.name, n.position, s.address, s.source
      FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s("macAddress" text, address text, source text)
      JOIN vm_nic n ON n.mac_address = s."macAddress"
      WHERE n.mac_address = ANY(${macs}::text[])
      ORDER BY n.vm_id, n.name, s.address, array_position(ARRAY['lease', 'agent', 'arp'], s.source)),
    of_vm AS (
      SELECT vm_id, jsonb_agg(jsonb_build_object('nic', name, 'address', address, 'source', source)
                              ORDER BY position, address) AS addresses
      FROM seen GROUP BY vm_id),
    news AS (
      SELECT old.id, CASE WHEN old.power IN ('running', 'paused') THEN coalesce(p.addresses, '[]') ELSE '[]' END AS addresses
      FROM vm old LEFT JOIN of_vm p ON p.vm_id = old.id WHERE old.host_id = ${hostId}::uuid),
    changed AS (
      UPDATE vm SET addresses = news.addresses FROM news
      WHERE vm.id = news.id AND vm.addresses <> news.addresses
        AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      RETURNING vm.id, vm.name, vm.project_id, vm.addresses)
    ${insertEvents([vmEventRows("vm.addresses.changed", Prisma.sql`changed AS c`, null, data)])}`;
}

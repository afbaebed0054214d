import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { insertEvents, vmEventRows } from "../events/event-store.ts";
import type { AgentWord } from "../hosts/observation-sink.ts";
import type { SeenAddress } from "../hypervisors/hypervisor.ts";
import type { HostId } from "../lib/ids.ts";

/**
 * Which addresses the VMs of a host were seen to have: by the host, and by the agents in the guests. One that is off has
 * none: what a DHCP server remembers of it is of the past.
 */

/** Writes what an inventory showed, where that differs; what agents told stays beside it. */
export async function applyAddresses(
  tx: Tx,
  hostId: HostId,
  seen: readonly SeenAddress[],
  observedAt: Date,
): Promise<void> {
  const macs = [...new Set(seen.map(({ macAddress }) => macAddress))];
  const sightings = Prisma.sql`
    SELECT n.vm_id, n.name, n.position, s.address, s.source
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s("macAddress" text, address text, source text)
    JOIN vm_nic n ON n.mac_address = s."macAddress"
    WHERE n.mac_address = ANY(${macs}::text[])`;
  await writeAddresses(tx, sightings, Prisma.sql`v.host_id = ${hostId}::uuid`, observedAt);
}

/** Writes what agents told of their guests, and the addresses among it beside those that their host saw. */
export async function applyAgentWords(tx: Tx, hostId: HostId, words: readonly AgentWord[]): Promise<void> {
  const vmIds = await writeWords(tx, hostId, words);
  if (vmIds.length === 0) return;
  const sightings = Prisma.sql`
    SELECT n.vm_id, n.name, n.position, s.address, s.source
    FROM vm v CROSS JOIN LATERAL jsonb_to_recordset(v.addresses) AS s(nic text, address text, source text)
    JOIN vm_nic n ON n.vm_id = v.id AND n.name = s.nic
    WHERE v.id = ANY(${[...vmIds]}::text[]::uuid[]) AND s.source <> 'agent'`;
  const askedLast = new Date(Math.max(...words.map(({ askedAt }) => askedAt.getTime())));
  await writeAddresses(tx, sightings, Prisma.sql`v.id = ANY(${[...vmIds]}::text[]::uuid[])`, askedLast);
}

/** An agent that gives no answer keeps what it told before. Returns the VMs that are meant. */
async function writeWords(tx: Tx, hostId: HostId, words: readonly AgentWord[]): Promise<readonly string[]> {
  const rows = words.map(({ uuid, askedAt, report, error }) => ({
    ...report,
    uuid,
    error,
    toldAt: report === null ? null : askedAt,
  }));
  const data = Prisma.sql`jsonb_build_object('state', 'connected', 'hostName', c.host_name, 'osName', c.os_name,
    'kernelRelease', c.kernel_release, 'error', c.error)`;
  const before = Prisma.sql`(c.old_host_name, c.old_os_name, c.old_kernel_release, c.old_error IS NULL)`;
  const now = Prisma.sql`(c.host_name, c.os_name, c.kernel_release, c.error IS NULL)`;
  const changed = Prisma.sql`written AS c WHERE ${before} IS DISTINCT FROM ${now}`;
  await tx.$executeRaw`
    WITH said AS (
      SELECT v.id, v.name, v.project_id, s.*, a.host_name AS old_host_name, a.os_name AS old_os_name,
        a.kernel_release AS old_kernel_release, a.error AS old_error
      FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS s(uuid uuid, "hostName" text,
        "osName" text, "kernelRelease" text, addresses jsonb, error text, "toldAt" timestamptz)
      JOIN vm v ON v.domain_uuid = s.uuid AND v.host_id = ${hostId}::uuid LEFT JOIN vm_agent a ON a.vm_id = v.id),
    kept AS (
      INSERT INTO vm_agent AS a (vm_id, host_name, os_name, kernel_release, addresses, error, told_at)
      SELECT id, "hostName", "osName", "kernelRelease", coalesce(addresses, '[]'), error, "toldAt" FROM said
      ON CONFLICT (vm_id) DO UPDATE SET error = EXCLUDED.error,
        host_name = CASE WHEN EXCLUDED.told_at IS NULL THEN a.host_name ELSE EXCLUDED.host_name END,
        os_name = CASE WHEN EXCLUDED.told_at IS NULL THEN a.os_name ELSE EXCLUDED.os_name END,
        kernel_release = CASE WHEN EXCLUDED.told_at IS NULL THEN a.kernel_release ELSE EXCLUDED.kernel_release END,
        addresses = CASE WHEN EXCLUDED.told_at IS NULL THEN a.addresses ELSE EXCLUDED.addresses END,
        told_at = coalesce(EXCLUDED.told_at, a.told_at)
      RETURNING a.vm_id, a.host_name, a.os_name, a.kernel_release, a.error),
    written AS (
      SELECT said.id, said.name, said.project_id, said.old_host_name, said.old_os_name, said.old_kernel_release,
        said.old_error, kept.host_name, kept.os_name, kept.kernel_release, kept.error
      FROM said JOIN kept ON kept.vm_id = said.id)
    ${insertEvents([vmEventRows("vm.agent.changed", changed, null, data)])}`;
  const uuids = words.map(({ uuid }) => uuid);
  const vms = await tx.$queryRaw<{ id: string }[]>`
    SELECT id FROM vm WHERE host_id = ${hostId}::uuid AND domain_uuid = ANY(${uuids}::text[]::uuid[])`;
  return vms.map(({ id }) => id);
}

/**
 * Writes the addresses of the VMs `v` that are meant, where they differ: what was seen, and what their agents told while
 * they are connected. An address is told of once, by the best source. An agent speaks for the NICs of its own VM alone.
 */
async function writeAddresses(
  tx: Tx,
  sightings: Prisma.Sql,
  meant: Prisma.Sql,
  observedAt: Date,
): Promise<void> {
  const data = Prisma.sql`jsonb_build_object('addresses', c.addresses)`;
  await tx.$executeRaw`
    WITH all_seen AS (
      ${sightings}
      UNION ALL
      SELECT n.vm_id, n.name, n.position, t.address, 'agent'
      FROM vm v JOIN vm_agent a ON a.vm_id = v.id
      CROSS JOIN LATERAL jsonb_to_recordset(a.addresses) AS t("macAddress" text, address text)
      JOIN vm_nic n ON n.vm_id = v.id AND n.mac_address = t."macAddress"
      WHERE ${meant} AND v.agent_state = 'connected'),
    seen AS (
      SELECT DISTINCT ON (vm_id, name, address) vm_id, name, position, address, source FROM all_seen
      ORDER BY vm_id, name, address, array_position(ARRAY['lease', 'agent', 'arp'], source)),
    of_vm AS (
      SELECT vm_id, jsonb_agg(jsonb_build_object('nic', name, 'address', address, 'source', source)
                              ORDER BY position, address) AS addresses
      FROM seen GROUP BY vm_id),
    news AS (
      SELECT v.id, CASE WHEN v.power IN ('running', 'paused') THEN coalesce(p.addresses, '[]') ELSE '[]' END AS addresses
      FROM vm v LEFT JOIN of_vm p ON p.vm_id = v.id WHERE ${meant}),
    changed AS (
      UPDATE vm SET addresses = news.addresses FROM news
      WHERE vm.id = news.id AND vm.addresses <> news.addresses
        AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      RETURNING vm.id, vm.name, vm.project_id, vm.addresses)
    ${insertEvents([vmEventRows("vm.addresses.changed", Prisma.sql`changed AS c`, null, data)])}`;
}

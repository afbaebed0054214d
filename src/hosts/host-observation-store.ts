import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import type { HostFacts, HostInventory, ObservedDomain } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { type HostId, type InstallationId, newId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";

/** What a host was seen to be. Whoever writes it has checked in the same transaction that the host is its own. */

/** A host under the epoch at which a worker owns it. */
export interface Owned {
  readonly hostId: HostId;
  readonly epoch: bigint;
}

/** Thrown when the host has another owner by now: stop, write nothing more. */
export class NotOwner extends Error {
  override readonly name = "NotOwner";
}

/** Locks the host's row and checks that it is still owned under this epoch. */
export async function lockOwned(tx: Tx, owned: Owned): Promise<void> {
  const rows = await tx.$queryRaw<{ id: string }[]>`
    SELECT h.id FROM host h JOIN worker w ON w.id = h.owner_id
    WHERE h.id = ${owned.hostId}::uuid AND h.epoch = ${owned.epoch} AND w.lease_expires_at > now()
    FOR NO KEY UPDATE OF h`;
  if (rows.length === 0)
    throw new NotOwner(`host ${owned.hostId} has another owner than epoch ${owned.epoch}`);
}

export async function recordFacts(tx: Tx, hostId: HostId, facts: HostFacts): Promise<void> {
  await tx.$executeRaw`
    UPDATE host SET facts = ${JSON.stringify(facts)}::jsonb, host_uuid = ${facts.hostUuid},
      hypervisor = ${facts.hypervisor}, cpu_count = ${facts.cpu.count}, memory_mib = ${facts.memoryMib},
      last_seen_at = ${new Date()}, updated_at = now()
    WHERE id = ${hostId}::uuid`;
}

/** The host does not answer. Returns whether that is news. */
export async function recordUnreachable(tx: Tx, hostId: HostId, error: ErrorBody): Promise<boolean> {
  const [row] = await tx.$queryRaw<{ name: string; before: string }[]>`
    UPDATE host SET state = 'unreachable', error = ${JSON.stringify(error)}::jsonb, updated_at = now()
    FROM (SELECT id, state FROM host WHERE id = ${hostId}::uuid FOR NO KEY UPDATE) old
    WHERE host.id = old.id RETURNING host.name, old.state AS before`;
  const isNews = row !== undefined && row.before !== "unreachable";
  if (isNews) await tellState(tx, "host.unreachable", hostId, row.name, { error: error.code });
  return isNews;
}

async function tellState(tx: Tx, type: string, id: HostId, name: string, data: JsonObject): Promise<void> {
  await appendEvent(tx, { type, subject: { kind: "host", id, name }, projectId: null, data });
}

/**
 * Writes a complete inventory under the host's next number and makes the host `ready`. What it does not show is gone
 * afterwards, and only rows that differ are written. One that was asked for before what is recorded already changes
 * nothing. Locks the host's row.
 */
export async function recordInventory(
  tx: Tx,
  hostId: HostId,
  inventory: HostInventory,
  installationId: InstallationId,
  observedAt: Date,
): Promise<{ readonly recorded: boolean }> {
  const before = (
    await tx.$queryRaw<{ name: string; state: string; seq: bigint; at: Date | null }[]>`
      SELECT name, state, inventory_seq AS seq, inventory_at AS at FROM host WHERE id = ${hostId}::uuid
      FOR NO KEY UPDATE`
  )[0];
  if (before === undefined || (before.at !== null && before.at > observedAt)) return { recorded: false };
  const seq = before.seq + 1n;
  const strangers = await unmanaged(tx, hostId, inventory.domains, installationId);
  const cpuCount = strangers.reduce((sum, domain) => sum + domain.cpuCount, 0);
  const memoryMib = strangers.reduce((sum, domain) => sum + domain.memoryMib, 0);
  await tx.$executeRaw`
    UPDATE host SET state = 'ready', error = NULL, inventory_seq = ${seq}, inventory_at = ${observedAt},
      last_seen_at = ${observedAt}, unmanaged_cpu_count = ${cpuCount}, unmanaged_memory_mib = ${memoryMib},
      updated_at = now()
    WHERE id = ${hostId}::uuid`;
  await writeDomains(tx, hostId, inventory.domains, seq, observedAt);
  const uuids = inventory.domains.map(({ uuid }) => uuid);
  await tx.$executeRaw`
    DELETE FROM observed_domain WHERE host_id = ${hostId}::uuid AND domain_uuid <> ALL(${uuids}::text[]::uuid[])
      AND observed_at <= ${observedAt}`;
  await writeNetworks(tx, hostId, inventory, seq, observedAt);
  await writePools(tx, hostId, inventory, seq, observedAt);
  if (before.state !== "ready") await tellState(tx, "host.ready", hostId, before.name, {});
  return { recorded: true };
}

/** The domains that use memory and CPUs and that no reservation stands for: others', and ours without a VM here. */
async function unmanaged(
  tx: Tx,
  hostId: HostId,
  domains: readonly ObservedDomain[],
  installationId: InstallationId,
): Promise<ObservedDomain[]> {
  const rows = await tx.$queryRaw<{ domainUuid: string | null }[]>`
    SELECT domain_uuid AS "domainUuid" FROM vm WHERE host_id = ${hostId}::uuid`;
  const ours = new Set(rows.map(({ domainUuid }) => domainUuid));
  return domains.filter(
    (domain) =>
      (domain.power === "running" || domain.power === "paused") &&
      !(domain.installationId === installationId && ours.has(domain.uuid)),
  );
}

/** Writes domains as they were just seen, outside a complete inventory; the next one confirms or removes them. */
export async function recordDomains(
  tx: Tx,
  hostId: HostId,
  domains: readonly ObservedDomain[],
  observedAt: Date,
): Promise<void> {
  const seq = Prisma.sql`(SELECT inventory_seq FROM host WHERE id = ${hostId}::uuid)`;
  await writeDomains(tx, hostId, domains, seq, observedAt);
}

/** Forgets domains that the host says it does not have, unless they were seen later. */
export async function forgetDomains(
  tx: Tx,
  hostId: HostId,
  domainUuids: readonly string[],
  observedAt: Date,
): Promise<void> {
  if (domainUuids.length === 0) return;
  await tx.$executeRaw`
    DELETE FROM observed_domain WHERE host_id = ${hostId}::uuid
      AND domain_uuid = ANY(${[...domainUuids]}::text[]::uuid[]) AND observed_at <= ${observedAt}`;
}

/** New rows and rows that differ only: an idle host of a thousand domains costs one reading statement. */
async function writeDomains(
  tx: Tx,
  hostId: HostId,
  domains: readonly ObservedDomain[],
  seq: bigint | Prisma.Sql,
  observedAt: Date,
): Promise<void> {
  if (domains.length === 0) return;
  await tx.$executeRaw`
    INSERT INTO observed_domain AS o (host_id, domain_uuid, name, power, reason, cpu_count, memory_mib,
                                      installation_id, vm_id, autostart, inventory_seq, observed_at)
    SELECT ${hostId}::uuid, d.uuid, d.name, d.power, d.reason, d."cpuCount", d."memoryMib",
           d."installationId", d."vmId", d.autostart, ${seq}, ${observedAt}
    FROM jsonb_to_recordset(${JSON.stringify(domains)}::jsonb)
      AS d(uuid uuid, name text, power text, reason text, "cpuCount" int, "memoryMib" int,
           "installationId" text, "vmId" text, autostart boolean)
    LEFT JOIN observed_domain k ON k.host_id = ${hostId}::uuid AND k.domain_uuid = d.uuid
    WHERE k.host_id IS NULL OR (k.observed_at <= ${observedAt} AND
      (k.name, k.power, k.reason, k.cpu_count, k.memory_mib, k.installation_id, k.vm_id, k.autostart) IS DISTINCT FROM
      (d.name, d.power, d.reason, d."cpuCount", d."memoryMib", d."installationId", d."vmId", d.autostart))
    ON CONFLICT (host_id, domain_uuid) DO UPDATE SET
      name = EXCLUDED.name, power = EXCLUDED.power, reason = EXCLUDED.reason, cpu_count = EXCLUDED.cpu_count,
      memory_mib = EXCLUDED.memory_mib, installation_id = EXCLUDED.installation_id, vm_id = EXCLUDED.vm_id,
      autostart = EXCLUDED.autostart, inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at
    WHERE o.observed_at <= EXCLUDED.observed_at`;
}

async function writeNetworks(
  tx: Tx,
  hostId: HostId,
  inventory: HostInventory,
  seq: bigint,
  at: Date,
): Promise<void> {
  const rows = inventory.networks.map((network) => ({ id: newId(), ...network }));
  await tx.$executeRaw`
    INSERT INTO host_network (id, host_id, name, uuid, active, bridge, mode, inventory_seq, observed_at)
    SELECT n.id, ${hostId}::uuid, n.name, n.uuid, n.active, n.bridge, n.mode, ${seq}, ${at}
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      AS n(id uuid, name text, uuid text, active boolean, bridge text, mode text)
    LEFT JOIN host_network k ON k.host_id = ${hostId}::uuid AND k.name = n.name
    WHERE k.id IS NULL OR (k.uuid, k.active, k.bridge, k.mode) IS DISTINCT FROM (n.uuid, n.active, n.bridge, n.mode)
    ON CONFLICT (host_id, name) DO UPDATE SET uuid = EXCLUDED.uuid, active = EXCLUDED.active, bridge = EXCLUDED.bridge,
      mode = EXCLUDED.mode, inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at`;
  const names = rows.map(({ name }) => name);
  await tx.$executeRaw`DELETE FROM host_network WHERE host_id = ${hostId}::uuid AND name <> ALL(${names}::text[])`;
}

async function writePools(
  tx: Tx,
  hostId: HostId,
  inventory: HostInventory,
  seq: bigint,
  at: Date,
): Promise<void> {
  const rows = inventory.pools.map((pool) => ({ id: newId(), ...pool }));
  await tx.$executeRaw`
    INSERT INTO host_pool (id, host_id, name, uuid, active, type, path, capacity_bytes, available_bytes,
                           inventory_seq, observed_at)
    SELECT p.id, ${hostId}::uuid, p.name, p.uuid, p.active, p.type, p.path, p."capacityBytes", p."availableBytes",
           ${seq}, ${at}
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      AS p(id uuid, name text, uuid text, active boolean, type text, path text, "capacityBytes" bigint,
           "availableBytes" bigint)
    LEFT JOIN host_pool k ON k.host_id = ${hostId}::uuid AND k.name = p.name
    WHERE k.id IS NULL OR (k.uuid, k.active, k.type, k.path, k.capacity_bytes, k.available_bytes) IS DISTINCT FROM
      (p.uuid, p.active, p.type, p.path, p."capacityBytes", p."availableBytes")
    ON CONFLICT (host_id, name) DO UPDATE SET uuid = EXCLUDED.uuid, active = EXCLUDED.active, type = EXCLUDED.type,
      path = EXCLUDED.path, capacity_bytes = EXCLUDED.capacity_bytes, available_bytes = EXCLUDED.available_bytes,
      inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at`;
  const names = rows.map(({ name }) => name);
  await tx.$executeRaw`DELETE FROM host_pool WHERE host_id = ${hostId}::uuid AND name <> ALL(${names}::text[])`;
}

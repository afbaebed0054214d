import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import type { HostFacts, HostInventory, ObservedDomain } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { type HostId, type InstallationId, newId } from "../lib/ids.ts";

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
  await tx.host.update({
    where: { id: hostId },
    data: {
      facts: facts as unknown as Prisma.InputJsonObject,
      hostUuid: facts.hostUuid,
      hypervisor: facts.hypervisor,
      cpuCount: facts.cpu.count,
      memoryMib: facts.memoryMib,
      lastSeenAt: new Date(),
    },
  });
}

/** The host does not answer. Returns whether that is news. */
export async function recordUnreachable(tx: Tx, hostId: HostId, error: ErrorBody): Promise<boolean> {
  const before = await tx.host.findUniqueOrThrow({ where: { id: hostId }, select: { state: true } });
  await tx.host.update({
    where: { id: hostId },
    data: { state: "unreachable", error: error as unknown as Prisma.InputJsonObject },
  });
  return before.state !== "unreachable";
}

/**
 * Writes a complete inventory under the host's next number and makes the host `ready`. Returns the number and
 * whether the host became ready by it. Rows of an earlier number are gone afterwards: they were not found.
 */
export async function recordInventory(
  tx: Tx,
  hostId: HostId,
  inventory: HostInventory,
  installationId: InstallationId,
  observedAt: Date,
): Promise<{ readonly seq: bigint; readonly becameReady: boolean }> {
  const before = await tx.host.findUniqueOrThrow({
    where: { id: hostId },
    select: { state: true, inventorySeq: true },
  });
  const seq = before.inventorySeq + 1n;
  const foreign = inventory.domains.filter((domain) => domain.installationId !== installationId);
  const busy = foreign.filter((domain) => domain.power === "running" || domain.power === "paused");
  await tx.host.update({
    where: { id: hostId },
    data: {
      state: "ready",
      error: Prisma.DbNull,
      inventorySeq: seq,
      inventoryAt: observedAt,
      lastSeenAt: observedAt,
      unmanagedCpuCount: busy.reduce((sum, domain) => sum + domain.cpuCount, 0),
      unmanagedMemoryMib: busy.reduce((sum, domain) => sum + domain.memoryMib, 0),
    },
  });
  await writeDomains(tx, hostId, inventory.domains, seq, observedAt);
  await writeNetworks(tx, hostId, inventory, seq, observedAt);
  await writePools(tx, hostId, inventory, seq, observedAt);
  for (const table of ["observed_domain", "host_network", "host_pool"]) {
    await tx.$executeRaw`DELETE FROM ${Prisma.raw(table)} WHERE host_id = ${hostId}::uuid AND inventory_seq < ${seq}`;
  }
  return { seq, becameReady: before.state !== "ready" };
}

/** Writes one domain as it was just seen, outside a complete inventory; the next one confirms or removes it. */
export async function recordDomain(
  tx: Tx,
  hostId: HostId,
  domain: ObservedDomain,
  observedAt: Date,
): Promise<void> {
  const host = await tx.host.findUniqueOrThrow({ where: { id: hostId }, select: { inventorySeq: true } });
  await writeDomains(tx, hostId, [domain], host.inventorySeq, observedAt);
}

/** Forgets a domain that the host says it does not have. */
export async function forgetDomain(tx: Tx, hostId: HostId, domainUuid: string): Promise<void> {
  await tx.observedDomain.deleteMany({ where: { hostId, domainUuid } });
}

async function writeDomains(
  tx: Tx,
  hostId: HostId,
  domains: readonly ObservedDomain[],
  seq: bigint,
  observedAt: Date,
): Promise<void> {
  if (domains.length === 0) return;
  await tx.$executeRaw`
    INSERT INTO observed_domain (host_id, domain_uuid, name, power, reason, cpu_count, memory_mib,
                                 installation_id, vm_id, autostart, inventory_seq, observed_at)
    SELECT ${hostId}::uuid, d.uuid::uuid, d.name, d.power, d.reason, d."cpuCount", d."memoryMib",
           d."installationId", d."vmId", d.autostart, ${seq}, ${observedAt}
    FROM jsonb_to_recordset(${JSON.stringify(domains)}::jsonb)
      AS d(uuid text, name text, power text, reason text, "cpuCount" int, "memoryMib" int,
           "installationId" text, "vmId" text, autostart boolean)
    ON CONFLICT (host_id, domain_uuid) DO UPDATE SET
      name = EXCLUDED.name, power = EXCLUDED.power, reason = EXCLUDED.reason, cpu_count = EXCLUDED.cpu_count,
      memory_mib = EXCLUDED.memory_mib, installation_id = EXCLUDED.installation_id, vm_id = EXCLUDED.vm_id,
      autostart = EXCLUDED.autostart, inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at`;
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
    ON CONFLICT (host_id, name) DO UPDATE SET uuid = EXCLUDED.uuid, active = EXCLUDED.active, bridge = EXCLUDED.bridge,
      mode = EXCLUDED.mode, inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at`;
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
    ON CONFLICT (host_id, name) DO UPDATE SET uuid = EXCLUDED.uuid, active = EXCLUDED.active, type = EXCLUDED.type,
      path = EXCLUDED.path, capacity_bytes = EXCLUDED.capacity_bytes, available_bytes = EXCLUDED.available_bytes,
      inventory_seq = EXCLUDED.inventory_seq, observed_at = EXCLUDED.observed_at`;
}

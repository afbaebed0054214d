import { Prisma } from "../db/generated/client.ts";
import { type Sql, sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import type { HostCapacity, HostState } from "../hosts/host-record.ts";
import type { HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { PlacementHost, PlacementPool } from "./placement.ts";

interface HostRow {
  id: string;
  name: string;
  state: HostState;
  schedulable: boolean;
  hypervisor: Hypervisor;
  guest_types: HostFacts["guestTypes"] | null;
  cpu_count: number | null;
  memory_mib: number | null;
  reserve_cpu_count: number;
  reserve_memory_mib: number;
  cpu_overcommit: number;
  memory_overcommit: number;
  unmanaged_cpu_count: number;
  unmanaged_memory_mib: number;
  reserved_cpu_count: number;
  reserved_memory_mib: number;
  networks: string[];
  pools: PlacementPool[];
}

/** `memoryWithOverhead` of placement.ts, where the server has the memory. */
export function memoryWithOverheadSql(memoryMib: Prisma.Sql): Prisma.Sql {
  return Prisma.sql`(${memoryMib} + 64 + (${memoryMib} + 63) / 64)`;
}

/** Every host as placement sees it, or the given one alone. */
export async function placementHosts(db: Sql, hostId?: string): Promise<PlacementHost[]> {
  const which = hostId === undefined ? Prisma.sql`true` : Prisma.sql`h.id = ${hostId}::uuid`;
  const rows = await db.$queryRaw<HostRow[]>`
    SELECT h.id, h.name, h.state, h.schedulable, h.hypervisor, h.facts->'guestTypes' AS guest_types, h.cpu_count,
      h.memory_mib, h.reserve_cpu_count, h.reserve_memory_mib, h.cpu_overcommit, h.memory_overcommit,
      h.unmanaged_cpu_count, h.unmanaged_memory_mib,
      coalesce(r.cpu_count, 0)::int AS reserved_cpu_count, coalesce(r.memory_mib, 0)::int AS reserved_memory_mib,
      coalesce((SELECT jsonb_agg(n.name) FROM host_network n WHERE n.host_id = h.id AND n.active), '[]') AS networks,
      coalesce((SELECT jsonb_agg(jsonb_build_object('name', p.name, 'active', p.active, 'type', p.type,
                                                    'availableBytes', p.available_bytes))
                FROM host_pool p WHERE p.host_id = h.id), '[]') AS pools
    FROM host h CROSS JOIN LATERAL (
      SELECT sum(cpu_count) AS cpu_count, sum(memory_mib) AS memory_mib FROM reservation
      WHERE host_id = h.id) r
    WHERE ${which} ORDER BY h.name`;
  return rows.map(hostOf);
}

function hostOf(row: HostRow): PlacementHost {
  return {
    id: row.id,
    name: row.name,
    state: row.state,
    schedulable: row.schedulable,
    hypervisor: row.hypervisor,
    guestTypes: row.guest_types ?? [],
    capacity: capacityOf(row),
    reservedCpuCount: row.reserved_cpu_count,
    reservedMemoryMib: row.reserved_memory_mib,
    networks: row.networks,
    pools: row.pools,
  };
}

function capacityOf(row: HostRow): HostCapacity | null {
  if (row.cpu_count === null || row.memory_mib === null) return null;
  return {
    cpuCount: row.cpu_count,
    memoryMib: row.memory_mib,
    reserveCpuCount: row.reserve_cpu_count,
    reserveMemoryMib: row.reserve_memory_mib,
    cpuOvercommit: row.cpu_overcommit,
    memoryOvercommit: row.memory_overcommit,
    unmanagedCpuCount: row.unmanaged_cpu_count,
    unmanagedMemoryMib: row.unmanaged_memory_mib,
  };
}

/**
 * Locks one host's row until the transaction ends and reads the host anew, in a second statement: a single one would
 * see reservations as they were before it waited for the lock. Null when the host is gone.
 */
export async function lockPlacementHost(tx: Tx, hostId: string): Promise<PlacementHost | null> {
  // NO KEY: foreign keys to the host, such as an event's or a volume's, need not wait for it. Sent together: the second
  // statement begins when the first has its lock.
  const lock = tx.$queryRaw<unknown[]>`SELECT 1 FROM host WHERE id = ${hostId}::uuid FOR NO KEY UPDATE`;
  const [locked, hosts] = await sentTogether(lock, placementHosts(tx, hostId));
  return locked.length === 0 ? null : (hosts[0] ?? null);
}

/** Locks the first of these hosts that nobody else has locked at this moment. Null: all are locked, or gone. */
export async function lockFreeHost(tx: Tx, hostIds: readonly string[]): Promise<string | null> {
  const ids = Prisma.sql`${[...hostIds]}::text[]::uuid[]`;
  const rows = await tx.$queryRaw<{ id: string }[]>`
    SELECT id FROM host WHERE id = ANY(${ids}) ORDER BY array_position(${ids}, id)
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED`;
  return rows[0]?.id ?? null;
}

/** Begins what endTry takes back, locks included. */
export async function beginTry(tx: Tx): Promise<void> {
  await tx.$executeRaw`SAVEPOINT placement_try`;
}

export async function endTry(tx: Tx): Promise<void> {
  await tx.$executeRaw`ROLLBACK TO SAVEPOINT placement_try`;
}

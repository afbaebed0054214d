import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import type { ObservedDomain } from "../hypervisors/hypervisor.ts";
import type { HostId, OperationId, VmId } from "../lib/ids.ts";
import type { Condition } from "./vm-record.ts";

/**
 * What was seen of VMs, and the events of it. An observation carries the time at which it was asked for: one that was
 * asked for before what is written already changes nothing.
 */

/** The event of each VM whose power changed, in the statement that changes it: `source` gives rows of VMs with `old_power`. */
function powerEvents(source: Prisma.Sql, operationId: OperationId | null): Prisma.Sql {
  return Prisma.sql`INSERT INTO event (id, type, project_id, subject_kind, subject_id, subject_name, operation_id, data)
    SELECT gen_random_uuid(), 'vm.power.changed', c.project_id, 'vm', c.id, c.name, ${operationId}::uuid,
           jsonb_build_object('from', c.old_power, 'to', c.power, 'reason', c.power_reason)
    FROM ${source} c WHERE c.old_power <> c.power`;
}

const CHANGED = Prisma.sql`RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, vm.power, vm.power_reason`;

/** What is known of one domain. */
export type SeenDomain = Pick<ObservedDomain, "uuid" | "power" | "reason">;

/**
 * Writes what one observation showed of the VMs of a host; only those that differ are touched. Whoever was seen is not
 * missing. The host's last inventory counts as an observation of all of them, for it writes nothing that it confirms.
 */
export async function applySeen(
  tx: Tx,
  hostId: HostId,
  domains: readonly SeenDomain[],
  observedAt: Date,
  operationId?: OperationId,
): Promise<void> {
  if (domains.length === 0) return;
  const seen = domains.map(({ uuid, power, reason }) => ({ uuid, power, reason }));
  // Named once more, for the planner: it takes any JSON for a hundred rows, and would read all VMs for them.
  const uuids = domains.map(({ uuid }) => uuid);
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = s.power, power_reason = s.reason, observed_at = ${observedAt},
      conditions = jsonb_path_query_array(vm.conditions, '$[*] ? (@.type != "DomainMissing")')
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s(uuid uuid, power text, reason text)
    JOIN vm old ON old.domain_uuid = s.uuid JOIN host h ON h.id = old.host_id
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND old.domain_uuid = ANY(${uuids}::text[]::uuid[])
      AND ((vm.power, vm.power_reason) IS DISTINCT FROM (s.power, s.reason)
        OR vm.conditions @> '[{"type": "DomainMissing"}]')
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      AND (h.inventory_at IS NULL OR h.inventory_at <= ${observedAt})
    ${CHANGED})
    ${powerEvents(Prisma.sql`changed`, operationId ?? null)}`;
}

/** The host fell silent: nothing is known of its VMs any more. When each was last seen stays. */
export async function applySilence(tx: Tx, hostId: HostId): Promise<void> {
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = 'unknown', power_reason = 'hostUnreachable'
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND vm.power <> 'unknown'
    ${CHANGED})
    ${powerEvents(Prisma.sql`changed`, null)}`;
}

/**
 * Compares a host's VMs with a complete inventory: those that should have a domain and have none are off and carry
 * `DomainMissing`, until the domain is seen again. A failed create has none by right. VMs that an operation works on
 * are left to it.
 */
export async function applyMissing(
  tx: Tx,
  hostId: HostId,
  uuids: readonly string[],
  observedAt: Date,
): Promise<void> {
  const missing: Condition = {
    type: "DomainMissing",
    reason: "NotInInventory",
    message: "The host has no domain of this VM any more. Start it to define it again, or delete it.",
    since: observedAt.toISOString(),
  };
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = 'off', power_reason = 'domainMissing', observed_at = ${observedAt},
      conditions = vm.conditions || CASE WHEN vm.phase = 'ready' AND NOT vm.conditions @> '[{"type": "DomainMissing"}]'
        THEN ${JSON.stringify([missing])}::jsonb ELSE '[]' END
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND NOT vm.domain_uuid = ANY(${[...uuids]}::text[]::uuid[])
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      AND (vm.phase IN ('ready', 'failed') AND vm.power <> 'off'
        OR vm.phase = 'ready' AND NOT vm.conditions @> '[{"type": "DomainMissing"}]')
      AND NOT EXISTS (SELECT 1 FROM operation_subject s
                      WHERE s.kind = 'vm' AND s.subject_id = vm.id AND s.unfinished AND s.active)
    ${CHANGED})
    ${powerEvents(Prisma.sql`changed`, null)}`;
}

/** The domain of a VM now has this generation of its spec. */
export async function setObservedGeneration(tx: Tx, id: VmId, generation: number): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm SET observed_generation = ${generation}::int, updated_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

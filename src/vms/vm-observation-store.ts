import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ObservedDomain } from "../hypervisors/hypervisor.ts";
import { asId, type HostId, type OperationId, type ProjectId, type VmId } from "../lib/ids.ts";
import type { Condition, VmPower } from "./vm-record.ts";

/**
 * What was seen of VMs, and the events of it. An observation carries the time at which it was asked for: one that was
 * asked for before what is written already changes nothing.
 */

interface Changed {
  id: string;
  name: string;
  project_id: string;
  old_power: VmPower;
  power: VmPower;
  power_reason: string | null;
}

async function tell(tx: Tx, rows: readonly Changed[], operationId?: OperationId): Promise<void> {
  for (const row of rows) {
    if (row.old_power === row.power) continue;
    await appendEvent(tx, {
      type: "vm.power.changed",
      subject: { kind: "vm", id: row.id, name: row.name },
      projectId: asId<ProjectId>(row.project_id),
      ...(operationId === undefined ? {} : { operationId }),
      data: { from: row.old_power, to: row.power, reason: row.power_reason },
    });
  }
}

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
  const rows = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET power = s.power, power_reason = s.reason, observed_at = ${observedAt},
      conditions = jsonb_path_query_array(vm.conditions, '$[*] ? (@.type != "DomainMissing")')
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s(uuid uuid, power text, reason text)
    JOIN vm old ON old.domain_uuid = s.uuid JOIN host h ON h.id = old.host_id
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid
      AND ((vm.power, vm.power_reason) IS DISTINCT FROM (s.power, s.reason)
        OR vm.conditions @> '[{"type": "DomainMissing"}]')
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      AND (h.inventory_at IS NULL OR h.inventory_at <= ${observedAt})
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, vm.power, vm.power_reason`;
  await tell(tx, rows, operationId);
}

/** The host fell silent: nothing is known of its VMs any more. When each was last seen stays. */
export async function applySilence(tx: Tx, hostId: HostId): Promise<void> {
  const rows = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET power = 'unknown', power_reason = 'hostUnreachable'
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND vm.power <> 'unknown'
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, vm.power, vm.power_reason`;
  await tell(tx, rows);
}

const NOT_AT_WORK = Prisma.sql`NOT EXISTS (SELECT 1 FROM operation_subject s
  WHERE s.kind = 'vm' AND s.subject_id = vm.id AND s.unfinished AND s.active)`;

/** True when a VM should have this domain, no operation works on it, and it is not known to be missing yet. */
export async function isMissed(tx: Tx, hostId: HostId, uuid: string): Promise<boolean> {
  const rows = await tx.$queryRaw<{ id: string }[]>`
    SELECT vm.id FROM vm
    WHERE vm.host_id = ${hostId}::uuid AND vm.domain_uuid = ${uuid}::uuid AND vm.phase = 'ready'
      AND NOT vm.conditions @> '[{"type": "DomainMissing"}]' AND ${NOT_AT_WORK}`;
  return rows.length > 0;
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
  const rows = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET power = 'off', power_reason = 'domainMissing', observed_at = ${observedAt},
      conditions = vm.conditions || CASE WHEN vm.phase = 'ready' AND NOT vm.conditions @> '[{"type": "DomainMissing"}]'
        THEN ${JSON.stringify([missing])}::jsonb ELSE '[]' END
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND NOT vm.domain_uuid = ANY(${[...uuids]}::text[]::uuid[])
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      AND (vm.phase IN ('ready', 'failed') AND vm.power <> 'off'
        OR vm.phase = 'ready' AND NOT vm.conditions @> '[{"type": "DomainMissing"}]')
      AND ${NOT_AT_WORK}
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, vm.power, vm.power_reason`;
  await tell(tx, rows);
}

/** The domain of a VM now has this generation of its spec. */
export async function setObservedGeneration(tx: Tx, id: VmId, generation: number): Promise<void> {
  await tx.vm.updateMany({ where: { id }, data: { observedGeneration: generation } });
}

import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ObservedDomain } from "../hypervisors/hypervisor.ts";
import { asId, type HostId, type OperationId, type ProjectId, type VmId } from "../lib/ids.ts";
import type { Condition, VmPower } from "./vm-record.ts";
import { withCondition, withoutConditions } from "./vm-state.ts";

/**
 * What was seen of VMs, and the events of it. An observation carries the time at which it was asked for: one that was
 * asked for before what is written already changes nothing.
 */

interface Changed {
  id: string;
  name: string;
  project_id: string;
  old_power: VmPower;
  old_reason: string | null;
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

/** Writes what one observation showed of the VMs of a host; only those that differ are touched. */
export async function applySeen(
  tx: Tx,
  hostId: HostId,
  domains: readonly ObservedDomain[],
  observedAt: Date,
  operationId?: OperationId,
): Promise<void> {
  if (domains.length === 0) return;
  const seen = domains.map(({ uuid, power, reason }) => ({ uuid, power, reason }));
  const rows = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET power = s.power, power_reason = s.reason, observed_at = ${observedAt}
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s(uuid uuid, power text, reason text)
    JOIN vm old ON old.domain_uuid = s.uuid
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid
      AND (vm.power, vm.power_reason) IS DISTINCT FROM (s.power, s.reason)
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, old.power_reason AS old_reason,
              vm.power, vm.power_reason`;
  await tell(tx, rows, operationId);
}

/** The host fell silent: nothing is known of its VMs any more. */
export async function applySilence(tx: Tx, hostId: HostId): Promise<void> {
  const rows = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET power = 'unknown', power_reason = 'hostUnreachable', observed_at = now()
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND vm.power <> 'unknown'
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, old.power_reason AS old_reason,
              vm.power, vm.power_reason`;
  await tell(tx, rows);
}

/**
 * Compares a host's VMs with a complete inventory: those that should have a domain and have none are off and carry
 * `DomainMissing`; it falls when the domain is back. VMs that an operation works on are left to it.
 */
export async function applyMissing(
  tx: Tx,
  hostId: HostId,
  uuids: readonly string[],
  observedAt: Date,
): Promise<void> {
  const rows = await tx.$queryRaw<{ id: string; conditions: Condition[]; present: boolean }[]>`
    SELECT v.id, v.conditions, v.domain_uuid = ANY(${[...uuids]}::uuid[]) AS present FROM vm v
    WHERE v.host_id = ${hostId}::uuid AND v.phase = 'ready'
      AND (v.observed_at IS NULL OR v.observed_at <= ${observedAt})
      AND v.domain_uuid = ANY(${[...uuids]}::uuid[]) = (v.conditions @> '[{"type": "DomainMissing"}]')
      AND NOT EXISTS (SELECT 1 FROM operation_subject s WHERE s.kind = 'vm' AND s.subject_id = v.id AND s.unfinished AND s.active)
    FOR UPDATE OF v`;
  for (const row of rows) await setMissing(tx, row, observedAt);
}

async function setMissing(
  tx: Tx,
  row: { readonly id: string; readonly conditions: readonly Condition[]; readonly present: boolean },
  observedAt: Date,
): Promise<void> {
  const conditions = row.present
    ? withoutConditions(row.conditions, ["DomainMissing"])
    : withCondition(row.conditions, {
        type: "DomainMissing",
        reason: "NotInInventory",
        message: "The host has no domain of this VM any more. Start it to define it again, or delete it.",
        since: observedAt.toISOString(),
      });
  const changed = await tx.$queryRaw<Changed[]>`
    UPDATE vm SET conditions = ${JSON.stringify(conditions)}::jsonb,
      power = CASE WHEN ${row.present} THEN vm.power ELSE 'off' END,
      power_reason = CASE WHEN ${row.present} THEN vm.power_reason ELSE 'domainMissing' END,
      observed_at = ${observedAt}
    FROM vm old WHERE vm.id = old.id AND vm.id = ${row.id}::uuid
    RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, old.power_reason AS old_reason,
              vm.power, vm.power_reason`;
  await tell(tx, changed);
}

/** The domain of a VM now has this generation of its spec. */
export async function setObservedGeneration(tx: Tx, id: VmId, generation: number): Promise<void> {
  await tx.vm.updateMany({ where: { id }, data: { observedGeneration: generation } });
}

import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { insertEvents, vmEventRows } from "../events/event-store.ts";
import type { AgentState, ObservedDomain, ObservedPower } from "../hypervisors/hypervisor.ts";
import type { HostId, OperationId, VmId } from "../lib/ids.ts";
import type { StepWrites } from "../operations/operation-kind.ts";
import { memoryWithOverheadSql } from "./placement-store.ts";
import type { Condition } from "./vm-record.ts";

/**
 * What was seen of VMs, and the events of it. An observation carries the time at which it was asked for: one that was
 * asked for before what is written already changes nothing.
 */

/** The event of each VM whose power changed, for insertEvents: `source` gives rows of VMs with `old_power`. */
function powerEventRows(source: Prisma.Sql, operationId: OperationId | null): Prisma.Sql {
  const data = Prisma.sql`jsonb_build_object('from', c.old_power, 'to', c.power, 'reason', c.power_reason)`;
  const changed = Prisma.sql`${source} AS c WHERE c.old_power <> c.power`;
  return vmEventRows("vm.power.changed", changed, operationId, data);
}

/** The event of each VM whose agent came or went: `source` gives rows of VMs with `old_agent`. */
function agentEventRows(source: Prisma.Sql, operationId: OperationId | null): Prisma.Sql {
  const isConnected = (state: Prisma.Sql) => Prisma.sql`(${state} IS NOT DISTINCT FROM 'connected')`;
  const [before, now] = [isConnected(Prisma.sql`c.old_agent`), isConnected(Prisma.sql`c.agent_state`)];
  const data = Prisma.sql`jsonb_build_object('state', coalesce(c.agent_state, 'unsupported'))`;
  return vmEventRows(
    "vm.agent.changed",
    Prisma.sql`${source} AS c WHERE ${before} <> ${now}`,
    operationId,
    data,
  );
}

const CHANGED = Prisma.sql`RETURNING vm.id, vm.name, vm.project_id, old.power AS old_power, vm.power, vm.power_reason`;
const TELL_CHANGED = insertEvents([powerEventRows(Prisma.sql`changed`, null)]);

const WITHOUT_MISSING = Prisma.sql`jsonb_path_query_array(vm.conditions, '$[*] ? (@.type != "DomainMissing")')`;

/** What is known of one domain. */
export type SeenDomain = Pick<ObservedDomain, "uuid" | "power" | "reason" | "agent">;

/**
 * Writes what one observation showed of the VMs of a host; only those that differ are touched. Whoever was seen is not
 * missing. The host's last inventory counts as an observation of all of them, for it writes nothing that it confirms.
 */
export async function applySeen(
  tx: Tx,
  hostId: HostId,
  domains: readonly SeenDomain[],
  observedAt: Date,
): Promise<void> {
  if (domains.length === 0) return;
  const seen = domains.map(({ uuid, power, reason, agent = null }) => ({ uuid, power, reason, agent }));
  // Named once more, for the planner: it takes any JSON for a hundred rows, and would read all VMs for them.
  const uuids = domains.map(({ uuid }) => uuid);
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = s.power, power_reason = s.reason, agent_state = s.agent,
      observed_at = ${observedAt}, conditions = ${WITHOUT_MISSING}
    FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS s(uuid uuid, power text, reason text, agent text)
    JOIN vm old ON old.domain_uuid = s.uuid JOIN host h ON h.id = old.host_id
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND old.domain_uuid = ANY(${uuids}::text[]::uuid[])
      AND ((vm.power, vm.power_reason, vm.agent_state) IS DISTINCT FROM (s.power, s.reason, s.agent)
        OR vm.conditions @> '[{"type": "DomainMissing"}]')
      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
      AND (h.inventory_at IS NULL OR h.inventory_at <= ${observedAt})
    ${CHANGED}, old.agent_state AS old_agent, vm.agent_state)
    ${insertEvents([powerEventRows(Prisma.sql`changed`, null), agentEventRows(Prisma.sql`changed`, null)])}`;
}

/** The host fell silent: nothing is known of its VMs any more. When each was last seen stays. */
export async function applySilence(tx: Tx, hostId: HostId): Promise<void> {
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = 'unknown', power_reason = 'hostUnreachable'
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND vm.power <> 'unknown'
    ${CHANGED})
    ${TELL_CHANGED}`;
}

const NOT_AT_WORK = Prisma.sql`NOT EXISTS (SELECT 1 FROM operation_subject s
  WHERE s.kind = 'vm' AND s.subject_id = vm.id AND s.unfinished AND s.active)`;

const KNOWN_MISSING = Prisma.sql`vm.conditions @> '[{"type": "DomainMissing"}]'`;

/** Those of these domains that VMs should have, on which no operation works and that are not known to be missing yet. */
export async function shouldBeThere(
  tx: Tx,
  hostId: HostId,
  uuids: readonly string[],
): Promise<readonly string[]> {
  if (uuids.length === 0) return [];
  const rows = await tx.$queryRaw<{ uuid: string }[]>`
    SELECT vm.domain_uuid AS uuid FROM vm
    WHERE vm.host_id = ${hostId}::uuid AND vm.domain_uuid = ANY(${[...uuids]}::text[]::uuid[]) AND vm.phase = 'ready'
      AND NOT ${KNOWN_MISSING} AND ${NOT_AT_WORK}`;
  return rows.map(({ uuid }) => uuid);
}

/**
 * What a complete inventory that shows these domains would say of VMs by their absence; a failed create has none by right.
 * VMs that an operation works on are left to it.
 */
const isMissed = (observedAt: Date): Prisma.Sql => Prisma.sql`
  (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
  AND (vm.phase IN ('ready', 'failed') AND vm.power <> 'off' OR vm.phase = 'ready' AND NOT ${KNOWN_MISSING})
  AND ${NOT_AT_WORK}`;

/** The domains that a host's VMs should have, or are not known to be without, and that are none of these. */
export async function missedVms(
  tx: Tx,
  hostId: HostId,
  present: readonly string[],
  observedAt: Date,
): Promise<readonly { readonly uuid: string; readonly known: boolean }[]> {
  return await tx.$queryRaw`
    SELECT vm.domain_uuid AS uuid, ${KNOWN_MISSING} AS known FROM vm
    WHERE vm.host_id = ${hostId}::uuid AND NOT vm.domain_uuid = ANY(${[...present]}::text[]::uuid[])
      AND ${isMissed(observedAt)}`;
}

/**
 * The host has none of these domains: VMs that should have one are off and carry `DomainMissing`, until the domain is
 * seen again.
 */
export async function applyMissing(
  tx: Tx,
  hostId: HostId,
  gone: readonly string[],
  observedAt: Date,
): Promise<void> {
  if (gone.length === 0) return;
  const missing: Condition = {
    type: "DomainMissing",
    reason: "NotInInventory",
    message: "The host has no domain of this VM any more. Start it to define it again, or delete it.",
    since: observedAt.toISOString(),
  };
  await tx.$executeRaw`
    WITH changed AS (UPDATE vm SET power = 'off', power_reason = 'domainMissing', observed_at = ${observedAt},
      conditions = vm.conditions || CASE WHEN vm.phase = 'ready' AND NOT ${KNOWN_MISSING}
        THEN ${JSON.stringify([missing])}::jsonb ELSE '[]' END
    FROM vm old
    WHERE vm.id = old.id AND vm.host_id = ${hostId}::uuid AND vm.domain_uuid = ANY(${[...gone]}::text[]::uuid[])
      AND ${isMissed(observedAt)}
    ${CHANGED})
    ${TELL_CHANGED}`;
}

/** The domain of a VM now has this generation of its spec. */
export async function setObservedGeneration(tx: Tx, id: VmId, generation: number): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm SET observed_generation = ${generation}::int, updated_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

/** What a domain was just defined with. */
export interface AppliedSpec {
  readonly generation: number;
  readonly cpuCount: number;
  readonly memoryMib: number;
}

// What has its size has its spec: new labels may have come meanwhile, and change nothing of the domain.
function generationOf({ generation, cpuCount, memoryMib }: AppliedSpec): Prisma.Sql {
  return Prisma.sql`CASE WHEN (vm.spec->'cpu'->>'count')::int = ${cpuCount}::int AND (vm.spec->>'memoryMib')::int = ${memoryMib}::int
    THEN vm.generation ELSE ${generation}::int END`;
}

/** The domain of a VM now has this spec: for a step's `write`. */
export function appliedWrites(id: VmId, applied: AppliedSpec): StepWrites {
  const part = Prisma.sql`applied AS (
    UPDATE vm SET observed_generation = ${generationOf(applied)}, updated_at = clock_timestamp()
    FROM o WHERE vm.id = ${id}::uuid)`;
  return { parts: [part], events: [] };
}

/** The same in a transaction. */
export async function recordApplied(tx: Tx, id: VmId, applied: AppliedSpec): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm SET observed_generation = ${generationOf(applied)}, updated_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

/** What an operation saw of a VM's domain; no power: there is none. */
export interface Sighting {
  readonly power: ObservedPower | null;
  readonly reason: string | null;
  readonly agent: AgentState | null;
  readonly observedAt: Date;
}

/**
 * Writes what an operation saw of its VM, by the rules of applySeen: for a step's `write`. A running VM that is to shrink
 * keeps what it has reserved until then: what is off takes its spec with the next start, and what has its spec needs no
 * more than that.
 */
export function seenWrites(
  id: VmId,
  { power, reason, agent, observedAt }: Sighting,
  operationId: OperationId,
): StepWrites {
  // What was saved comes back with the size that it had.
  const keepsSize = power === "running" || power === "paused" || power === "saved";
  const parts = [
    Prisma.sql`before AS (
      SELECT vm.id, vm.power, vm.agent_state, ${!keepsSize}::boolean OR vm.observed_generation = vm.generation AS settles,
        (vm.spec->'cpu'->>'count')::int AS cpu_count, ${memoryWithOverheadSql(Prisma.sql`(vm.spec->>'memoryMib')::int`)} AS memory_mib,
        ${power}::text IS NOT NULL
          AND ((vm.power, vm.power_reason, vm.agent_state) IS DISTINCT FROM (${power}::text, ${reason}::text, ${agent}::text)
            OR vm.conditions @> '[{"type": "DomainMissing"}]')
          AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})
          AND (h.inventory_at IS NULL OR h.inventory_at <= ${observedAt}) AS is_news
      FROM o JOIN vm ON vm.id = ${id}::uuid JOIN host h ON h.id = vm.host_id FOR NO KEY UPDATE OF vm)`,
    Prisma.sql`seen AS (
      UPDATE vm SET power = ${power}, power_reason = ${reason}, agent_state = ${agent}, observed_at = ${observedAt},
        conditions = ${WITHOUT_MISSING}
      FROM before WHERE vm.id = before.id AND before.is_news
      RETURNING vm.id, vm.name, vm.project_id, before.power AS old_power, vm.power, vm.power_reason,
        before.agent_state AS old_agent, vm.agent_state)`,
    Prisma.sql`settled AS (
      UPDATE reservation r SET cpu_count = before.cpu_count, memory_mib = before.memory_mib
      FROM before WHERE r.vm_id = before.id AND before.settles
        AND (r.cpu_count, r.memory_mib) <> (before.cpu_count, before.memory_mib))`,
  ];
  const seen = Prisma.sql`seen`;
  return { parts, events: [powerEventRows(seen, operationId), agentEventRows(seen, operationId)] };
}

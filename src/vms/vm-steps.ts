import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { ABSENCE_MS } from "../hosts/absence.ts";
import {
  type DomainDisk,
  type DomainSpec,
  type HostConnection,
  HypervisorError,
  type ObservedDomain,
  type ObservedPower,
  type VolumeRef,
} from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type VmId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type {
  OperationContext,
  Step,
  StepContext,
  StepHost,
  StepWrites,
} from "../operations/operation-kind.ts";
import { step } from "../operations/operation-kind.ts";
import { isDiskRole } from "../volumes/volume-record.ts";
import type { VolumeRecord } from "../volumes/volume-store.ts";
import { domainNic } from "./vm-nic-store.ts";
import { type AppliedSpec, seenWrites } from "./vm-observation-store.ts";
import { SEED_ROLE, type VmRecord } from "./vm-record.ts";
import { getVmWithParts, hostIdOfVm, type VmWithParts } from "./vm-store.ts";

/** What the steps of all VM operations share. */

/** Every VM operation names its VM; the rest of the input is the action's own. */
export const VmInput = z.object({ vmId: z.guid().transform((id) => asId<VmId>(id)) });
export type VmInput = z.output<typeof VmInput>;

/** The host that the VM is on, as the inventory says when the step begins. */
export const vmHost: StepHost<VmInput> = { subquery: ({ vmId }) => hostIdOfVm(vmId) };

/** The connection that a step with a host has. */
export function hostOf(context: StepContext<VmInput>): HostConnection {
  if (context.host === null) throw new Error(`a step of ${context.operation.kind} has no host`);
  return context.host;
}

export function gone(id: VmId): DroverError {
  return new DroverError("not_found", `The VM ${id} does not exist any more.`);
}

/** Limit of a step that writes or reads a guest's memory: a TiB at some 80 MiB a second. */
export const MEMORY_LIMIT_SECONDS = 14_400;
/** What does not move a guest's memory is answered by then, however long the step may last. */
const ANSWER_LIMIT_MS = 60_000;
const LOOK_AGAIN_MS = 500;

/** The same with calls that end sooner. */
export function answeredSoon<Context extends StepContext<VmInput>>(context: Context): Context {
  const timeoutMs = Math.min(context.call.timeoutMs, ANSWER_LIMIT_MS);
  return { ...context, call: { ...context.call, timeoutMs } };
}

/** Looks at the VM's domain. Null is no proof that there is none: see observeForCertain. */
export async function observe(context: StepContext<VmInput>): Promise<ObservedDomain | null> {
  return await hostOf(context).observeDomain(context.operation.input.vmId, answeredSoon(context).call);
}

/** The same, but looks again for some seconds where no domain is seen: it may be on its way through a reboot. */
export async function observeForCertain(context: StepContext<VmInput>): Promise<ObservedDomain | null> {
  const until = performance.now() + ABSENCE_MS;
  for (;;) {
    const domain = await observe(context);
    if (domain !== null || performance.now() >= until) return domain;
    await sleep(LOOK_AGAIN_MS, undefined, { signal: context.signal });
  }
}

/**
 * Cuts the power of what is on; with `memory` saved memory is thrown away too. Where no domain is seen the host is asked
 * nevertheless: it says that there is none, or that it is busy with it.
 */
export async function cutPower(context: StepContext<VmInput>, { memory = false } = {}): Promise<void> {
  const domain = await observe(context);
  if (domain !== null && !isOn(domain.power) && !(memory && domain.power === "saved")) return;
  try {
    await hostOf(context).forceOffDomain(context.operation.input.vmId, answeredSoon(context).call);
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.reason !== "not-found") throw error;
  }
}

export function isOn(power: ObservedPower | null | undefined): boolean {
  return power === "running" || power === "paused";
}

const Seen = z.object({
  power: z.enum(["running", "paused", "saved", "off", "crashed"]).nullable(),
  reason: z.string().nullable(),
  // Null in what was recorded before there was any: it is seen anew soon.
  agent: z.enum(["connected", "disconnected"]).nullable().default(null),
  observedAt: z.iso.datetime(),
});

/**
 * Looks at the domain: its power (null: there is none) and why. The result, given to `writeSeen`, becomes what the
 * inventory says; as the operation's result the client sees it too.
 */
export async function look(
  context: StepContext<VmInput>,
  see: typeof observe = observe,
): Promise<JsonObject> {
  const observedAt = new Date().toISOString();
  const domain = await see(context);
  const agent = domain?.agent ?? null;
  return { power: domain?.power ?? null, reason: domain?.reason ?? null, agent, observedAt };
}

/** Writes the result of `look` to the inventory. */
export function writeSeen(operation: OperationContext<VmInput>, result: JsonObject | undefined): StepWrites {
  const { observedAt, ...seen } = Seen.parse(result);
  return seenWrites(operation.input.vmId, { ...seen, observedAt: new Date(observedAt) }, operation.id);
}

/** What of a VM its domain is defined with, and does not change while it runs. */
export function sizeOf({ generation, spec }: Pick<VmRecord, "generation" | "spec">): AppliedSpec {
  return { generation, cpuCount: spec.cpu.count, memoryMib: spec.memoryMib };
}

/** The last step of what changes power: looks until it sees the domain, and records what is there now. */
export function observeStep<Input extends VmInput>(): Step<Input> {
  return step<Input, JsonObject>({
    name: "observe",
    host: vmHost,
    run: (context) => look(context, observeForCertain),
    write: writeSeen,
  });
}

/** The VM as it is now, and all that the driver needs to define its domain, from the inventory. */
export async function readDomainSpec(
  context: StepContext<VmInput>,
): Promise<{ readonly vm: VmRecord; readonly spec: DomainSpec }> {
  const { vmId } = context.operation.input;
  const found = await context.read((db) => getVmWithParts(db, vmId));
  if (found === null) throw gone(vmId);
  return { vm: found.vm, spec: domainSpecOf(found) };
}

function domainSpecOf({ vm, volumes, nics, installationId }: VmWithParts): DomainSpec {
  const { guestType, pool, domainName, spec } = vm;
  if (guestType === null || pool === null || domainName === null)
    throw new Error(`VM ${vm.id} was never placed`);
  const refOf = (role: string) => {
    const volume = volumes.find((candidate) => candidate.role === role);
    return volume === undefined ? null : { pool: volume.pool, name: volume.name };
  };
  return {
    uuid: vm.id,
    name: domainName,
    installationId,
    guestType,
    cpuCount: spec.cpu.count,
    memoryMib: spec.memoryMib,
    boot: bootOf(vm, refOf),
    disks: volumes.flatMap(domainDisksOf),
    nics: nics.map(domainNic),
    consolePool: pool,
  };
}

function bootOf(
  { id, spec: { boot } }: VmRecord,
  refOf: (role: string) => VolumeRef | null,
): DomainSpec["boot"] {
  if ("firmware" in boot) return { kind: "firmware", firmware: boot.firmware };
  const kernel = refOf("kernel");
  if (kernel === null) throw new Error(`VM ${id} boots a kernel that it has not`);
  return { kind: "kernel", kernel, initrd: refOf("initrd"), commandLine: boot.commandLine ?? "" };
}

/** No disk of a client's can have this name: theirs hold no underscores. */
const SEED_NAME = "cloud_init";

/** A disk as the guest sees it; nothing for a file that it only boots with. */
function domainDisksOf({ role, pool, name, format }: VolumeRecord): DomainDisk[] {
  const volume = { pool, name };
  if (isDiskRole(role)) return [{ name: role.slice(5), kind: "disk", volume, format }];
  return role === SEED_ROLE ? [{ name: SEED_NAME, kind: "cdrom", volume, format }] : [];
}

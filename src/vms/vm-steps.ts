import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import type { DomainSpec, HostConnection, ObservedDomain, ObservedPower } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type HostId, type VmId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { OperationContext, Step, StepContext } from "../operations/operation-kind.ts";
import { step } from "../operations/operation-kind.ts";
import { memoryWithOverhead } from "./placement.ts";
import { applySeen, setObservedGeneration } from "./vm-observation-store.ts";
import type { VmRecord } from "./vm-record.ts";
import {
  getVmWithParts,
  lockVmWithReservation,
  type Reservation,
  updateReservation,
  type VmWithParts,
  vmHostId,
} from "./vm-store.ts";

/** What the steps of all VM operations share. */

/** Every VM operation names its VM; the rest of the input is the action's own. */
export const VmInput = z.object({ vmId: z.guid().transform((id) => asId<VmId>(id)) });
export type VmInput = z.output<typeof VmInput>;

/** The host that the VM is on, as the inventory says when the step begins. */
export async function vmHost(tx: Tx, input: VmInput): Promise<HostId | null> {
  return await vmHostId(tx, input.vmId);
}

/** The connection that a step with a host has. */
export function hostOf(context: StepContext<VmInput>): HostConnection {
  if (context.host === null) throw new Error(`a step of ${context.operation.kind} has no host`);
  return context.host;
}

export function gone(id: VmId): DroverError {
  return new DroverError("not_found", `The VM ${id} does not exist any more.`);
}

/** Looks at the VM's domain. */
export async function observe(context: StepContext<VmInput>): Promise<ObservedDomain | null> {
  return await hostOf(context).observeDomain(context.operation.input.vmId, context.call);
}

export function isOn(power: ObservedPower | null | undefined): boolean {
  return power === "running" || power === "paused";
}

const Seen = z.object({
  power: z.enum(["running", "paused", "saved", "off", "crashed"]).nullable(),
  reason: z.string().nullable(),
  observedAt: z.iso.datetime(),
  applied: z.object({ generation: z.int(), cpuCount: z.int(), memoryMib: z.int() }).optional(),
});

/**
 * Looks at the domain: its power (null: there is none) and why. The result, given to `recordSeen`, becomes what the
 * inventory says; as the operation's result the client sees it too. `applied` is the VM whose spec the domain was just
 * given.
 */
export async function look(
  context: StepContext<VmInput>,
  applied?: Pick<VmRecord, "generation" | "spec">,
): Promise<JsonObject> {
  const observedAt = new Date().toISOString();
  const domain = await observe(context);
  return {
    power: domain?.power ?? null,
    reason: domain?.reason ?? null,
    observedAt,
    ...(applied === undefined ? {} : { applied: sizeOf(applied) }),
  };
}

function sizeOf({ generation, spec }: Pick<VmRecord, "generation" | "spec">) {
  return { generation, cpuCount: spec.cpu.count, memoryMib: spec.memoryMib };
}

/** Writes the result of `look` to the inventory. */
export async function recordSeen(
  tx: Tx,
  operation: OperationContext<VmInput>,
  result: JsonObject | undefined,
): Promise<void> {
  const { power, reason, observedAt, applied } = Seen.parse(result);
  const locked = await lockVmWithReservation(tx, operation.input.vmId);
  if (locked === null || locked.vm.hostId === null) return;
  const { vm, reservation } = locked;
  const { hostId } = locked.vm;
  // New labels may have come meanwhile: they change nothing of the domain.
  const isCurrent =
    applied !== undefined &&
    isDeepStrictEqual({ ...applied, generation: 0 }, sizeOf({ ...vm, generation: 0 }));
  const seenGeneration = isCurrent ? vm.generation : applied?.generation;
  if (seenGeneration !== undefined && seenGeneration !== vm.observedGeneration)
    await setObservedGeneration(tx, vm.id, seenGeneration);
  // What is off takes its spec with the next start, and what has its spec needs no more than that.
  if (!isOn(power) || isCurrent) await settleReservation(tx, vm, reservation);
  if (power === null || isSeen(vm, power, reason)) return;
  const seen = [{ uuid: vm.id, power, reason }];
  await applySeen(tx, hostId, seen, new Date(observedAt), operation.id);
}

/** Whether the VM's row, which is locked, says already what was seen. */
function isSeen(vm: VmRecord, power: ObservedPower, reason: string | null): boolean {
  const missing = vm.conditions.some(({ type }) => type === "DomainMissing");
  return vm.power === power && vm.powerReason === reason && !missing;
}

/** A running VM that shall shrink keeps what it has until then: now it gets what its spec says. */
async function settleReservation(tx: Tx, { id, spec }: VmRecord, has: Reservation | null): Promise<void> {
  const wanted = { cpuCount: spec.cpu.count, memoryMib: memoryWithOverhead(spec.memoryMib) };
  if (has !== null && !isDeepStrictEqual(has, wanted)) await updateReservation(tx, id, wanted);
}

/** The last step of what changes power: looks, and records what is there now. */
export function observeStep<Input extends VmInput>(): Step<Input> {
  return step<Input, JsonObject>({
    name: "observe",
    host: vmHost,
    run: (context) => look(context),
    record: recordSeen,
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
  const kernel = refOf("kernel");
  return {
    uuid: vm.id,
    name: domainName,
    installationId,
    guestType,
    cpuCount: spec.cpu.count,
    memoryMib: spec.memoryMib,
    boot:
      kernel === null
        ? { kind: "firmware", firmware: "bios" }
        : {
            kind: "kernel",
            kernel,
            initrd: refOf("initrd"),
            commandLine: "kernel" in spec.boot ? (spec.boot.commandLine ?? "") : "",
          },
    disks: volumes.flatMap((volume) =>
      volume.role.startsWith("disk:")
        ? [
            {
              name: volume.role.slice(5),
              volume: { pool: volume.pool, name: volume.name },
              format: volume.format,
            },
          ]
        : [],
    ),
    nics: [...nics],
    consolePool: pool,
  };
}

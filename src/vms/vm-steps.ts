import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { installationIdOf } from "../db/installation.ts";
import type { Tx } from "../db/transaction.ts";
import type { DomainSpec, HostConnection, ObservedDomain, ObservedPower } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type HostId, type VmId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { OperationContext, Step, StepContext } from "../operations/operation-kind.ts";
import { step } from "../operations/operation-kind.ts";
import { volumesOf } from "../volumes/volume-store.ts";
import { memoryWithOverhead } from "./placement.ts";
import { applySeen, setObservedGeneration } from "./vm-observation-store.ts";
import type { VmRecord } from "./vm-record.ts";
import { getVm, lockVm, nicsOf, updateReservation } from "./vm-store.ts";

/** What the steps of all VM operations share. */

/** Every VM operation names its VM; the rest of the input is the action's own. */
export const VmInput = z.object({ vmId: z.guid().transform((id) => asId<VmId>(id)) });
export type VmInput = z.output<typeof VmInput>;

/** The host that the VM is on, as the inventory says when the step begins. */
export async function vmHost(tx: Tx, input: VmInput): Promise<HostId | null> {
  return (await getVm(tx, input.vmId))?.hostId ?? null;
}

/** The connection that a step with a host has. */
export function hostOf(context: StepContext<VmInput>): HostConnection {
  if (context.host === null) throw new Error(`a step of ${context.operation.kind} has no host`);
  return context.host;
}

export async function requireVm(tx: Tx, id: VmId): Promise<VmRecord> {
  const vm = await getVm(tx, id);
  if (vm === null) throw new DroverError("not_found", `The VM ${id} does not exist any more.`);
  return vm;
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
  const vm = await lockVm(tx, operation.input.vmId);
  if (vm === null || vm.hostId === null) return;
  // New labels may have come meanwhile: they change nothing of the domain.
  const isCurrent =
    applied !== undefined &&
    isDeepStrictEqual({ ...applied, generation: 0 }, sizeOf({ ...vm, generation: 0 }));
  if (applied !== undefined)
    await setObservedGeneration(tx, vm.id, isCurrent ? vm.generation : applied.generation);
  // What is off takes its spec with the next start, and what has its spec needs no more than that.
  if (!isOn(power) || isCurrent) await settleReservation(tx, vm);
  if (power === null) return;
  const seen = [{ uuid: vm.id, power, reason }];
  await applySeen(tx, vm.hostId, seen, new Date(observedAt), operation.id);
}

/** A running VM that shall shrink keeps what it has until then: now it gets what its spec says. */
async function settleReservation(tx: Tx, { id, spec }: VmRecord): Promise<void> {
  const memoryMib = memoryWithOverhead(spec.memoryMib);
  await updateReservation(tx, id, { cpuCount: spec.cpu.count, memoryMib });
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

/** All that the driver needs to define the VM's domain, from the inventory. */
export async function domainSpecOf(tx: Tx, vm: VmRecord): Promise<DomainSpec> {
  const { guestType, pool, domainName, spec } = vm;
  if (guestType === null || pool === null || domainName === null)
    throw new Error(`VM ${vm.id} was never placed`);
  const volumes = await volumesOf(tx, vm.id);
  const nics = await nicsOf(tx, vm.id);
  const installationId = await installationIdOf(tx);
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
    nics: nics.map(({ name, network, macAddress }) => ({ name, network, macAddress })),
    consolePool: pool,
  };
}

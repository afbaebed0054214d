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
import { applySeen, setObservedGeneration } from "./vm-observation-store.ts";
import type { VmRecord } from "./vm-record.ts";
import { getVm, nicsOf } from "./vm-store.ts";

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

/** The VM as it stands. A VM that is gone ends the operation. */
export async function vmOf(context: StepContext<VmInput>): Promise<VmRecord> {
  return await context.transaction((tx) => requireVm(tx, context.operation.input.vmId));
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
  domain: z.custom<ObservedDomain>().nullable(),
  observedAt: z.string(),
  generation: z.number().optional(),
});

/** Looks at the domain; the result, given to `recordSeen`, becomes what the inventory says. */
export async function look(context: StepContext<VmInput>, generation?: number): Promise<JsonObject> {
  const observedAt = new Date().toISOString();
  const domain = await observe(context);
  return {
    domain: domain as unknown as JsonObject,
    observedAt,
    ...(generation === undefined ? {} : { generation }),
  };
}

/** Writes the result of `look` to the inventory. */
export async function recordSeen(
  tx: Tx,
  operation: OperationContext<VmInput>,
  result: JsonObject | undefined,
): Promise<void> {
  const { domain, observedAt, generation } = Seen.parse(result);
  const vm = await getVm(tx, operation.input.vmId);
  if (vm === null || vm.hostId === null) return;
  if (generation !== undefined) await setObservedGeneration(tx, vm.id, generation);
  if (domain !== null) await applySeen(tx, vm.hostId, [domain], new Date(observedAt), operation.id);
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

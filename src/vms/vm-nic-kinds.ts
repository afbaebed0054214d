import { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { type DomainNic, HypervisorError, type NicAbility } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import {
  type Admission,
  type AnyOperationKind,
  anyKind,
  type OperationContext,
  type OperationKind,
  type OperationOutcome,
  type StepContext,
  step,
} from "../operations/operation-kind.ts";
import { keepOutcome } from "./vm-action.ts";
import { prepareNetworks, releaseNetworks } from "./vm-network-steps.ts";
import { dropNic, restoreNic } from "./vm-nic-rows.ts";
import { domainNicOf, setNicAttached } from "./vm-nic-store.ts";
import { VmInput as Base, hostOf, isOn, observe, readDomainSpec, vmHost } from "./vm-steps.ts";
import { getVm, lockVm } from "./vm-store.ts";

/** The operations that plug NICs into VMs and take them out, whatever the VM's power. */

const NicInput = Base.extend({
  nic: z.string(),
  /** Whether it is in a network of the project. */
  managed: z.boolean(),
});
type NicInput = z.output<typeof NicInput>;
type Nothing = Record<string, never>;

const LIMIT_SECONDS = 900;
/** Powers at which a guest has devices, or its next start decides. What is saved has those that it was saved with. */
const CHANGEABLE: ReadonlySet<string> = new Set(["running", "paused", "off", "crashed"]);

async function admit(tx: Tx, { input }: OperationContext<NicInput>): Promise<Admission> {
  const vm = await getVm(tx, input.vmId);
  if (vm === null)
    return { kind: "refuse", error: new DroverError("not_found", "The VM does not exist any more.") };
  if (vm.phase === "ready" && CHANGEABLE.has(vm.power)) return { kind: "run" };
  return { kind: "refuse", error: notChangeable(vm) };
}

export function notChangeable(vm: { readonly name: string; readonly power: string; readonly phase: string }) {
  return new DroverError(
    "invalid_state",
    `VM "${vm.name}" is ${vm.power} in phase ${vm.phase}, in which its NICs cannot be changed: it must be on or off.`,
    { details: { power: vm.power, phase: vm.phase } },
  );
}

const thisNic =
  ({ operation: { input } }: StepContext<NicInput>) =>
  ({ name }: { readonly name: string }): boolean =>
    name === input.nic;

/** Null: it is in the inventory no more. */
async function nicOf(context: StepContext<NicInput>): Promise<DomainNic | null> {
  const { vmId, nic } = context.operation.input;
  return await context.read((db) => domainNicOf(db, vmId, nic));
}

/** Defines the domain with this NIC, or without it: what it has at its next start. */
async function define(context: StepContext<NicInput>, has: boolean): Promise<void> {
  const { spec } = await readDomainSpec(context);
  const isThis = thisNic(context);
  const own = has ? await nicOf(context) : null;
  const nics = [...spec.nics.filter((nic) => !isThis(nic)), ...(own === null ? [] : [own])];
  await hostOf(context).defineDomain({ ...spec, nics }, context.call);
}

function abilityOf(context: StepContext<NicInput>): NicAbility {
  const { nics } = hostOf(context);
  if (nics !== undefined) return nics;
  throw new HypervisorError(
    "unsupported",
    "the host cannot plug a network interface into a guest that runs: stop the VM first",
  );
}

/** Has the guest have the NIC, or not have it, where it is on at this moment. */
async function plug(context: StepContext<NicInput>, has: boolean): Promise<void> {
  if (!isOn((await observe(context))?.power)) return;
  const nic = await nicOf(context);
  if (nic === null) return;
  const { vmId } = context.operation.input;
  await abilityOf(context)[has ? "attachNic" : "detachNic"](vmId, nic, context.call);
}

/** Whether the guest has it now; false where it is off. */
async function isPlugged(context: StepContext<NicInput>): Promise<boolean> {
  const { nics } = hostOf(context);
  if (nics === undefined || !isOn((await observe(context))?.power)) return false;
  const nic = await nicOf(context);
  const { vmId } = context.operation.input;
  return nic !== null && (await nics.listNics(vmId, context.call)).includes(nic.macAddress);
}

const attachKind: OperationKind<NicInput> = {
  name: "vm.attachNic",
  input: NicInput,
  deadlineSeconds: LIMIT_SECONDS,
  steps: [
    step<NicInput, Nothing>({
      name: "prepare-network",
      host: vmHost,
      skip: ({ managed }) => !managed,
      async run(context) {
        await prepareNetworks(context, thisNic(context));
        return undefined;
      },
      undo: (context) => releaseNetworks(context, thisNic(context)),
    }),
    step<NicInput, Nothing>({
      name: "define-domain",
      host: vmHost,
      async run(context) {
        await define(context, true);
        return undefined;
      },
      undo: (context) => define(context, false),
    }),
    step<NicInput, Nothing>({
      name: "plug-in",
      host: vmHost,
      async run(context) {
        await plug(context, true);
        return undefined;
      },
      undo: (context) => plug(context, false),
    }),
  ],
  admit,
  onEnd: (tx, operation, outcome) => recordEnd(tx, operation, outcome, "attached"),
};

const detachKind: OperationKind<NicInput> = {
  name: "vm.detachNic",
  input: NicInput,
  deadlineSeconds: LIMIT_SECONDS,
  steps: [
    // A guest that does not let go is found out before anything else has changed.
    step<NicInput, { wasPlugged: boolean }>({
      name: "unplug",
      host: vmHost,
      find: async (context) => ({ wasPlugged: await isPlugged(context) }),
      async run(context) {
        await plug(context, false);
        return undefined;
      },
      async undo(context) {
        if (context.found?.wasPlugged === true) await plug(context, true);
      },
    }),
    step<NicInput, Nothing>({
      name: "define-domain",
      host: vmHost,
      async run(context) {
        await define(context, false);
        return undefined;
      },
      undo: (context) => define(context, true),
    }),
    step<NicInput, Nothing>({
      name: "release-network",
      host: vmHost,
      skip: ({ managed }) => !managed,
      async run(context) {
        await releaseNetworks(context, thisNic(context));
        return undefined;
      },
      undo: (context) => prepareNetworks(context, thisNic(context)),
    }),
  ],
  admit,
  onEnd: (tx, operation, outcome) => recordEnd(tx, operation, outcome, "detached"),
};

/**
 * A NIC that could not be attached is in the inventory no more, and one that could not be detached is in the spec again.
 * Where that needs attention it stays as it is asked for: nobody knows what the guest has.
 */
async function recordEnd(
  tx: Tx,
  operation: OperationContext<NicInput>,
  outcome: OperationOutcome,
  verb: "attached" | "detached",
): Promise<void> {
  const { vmId, nic } = operation.input;
  const vm = await lockVm(tx, vmId);
  if (vm === null) return;
  const isGone = (outcome.state === "succeeded") === (verb === "detached");
  if (outcome.state !== "attention" && isGone) await dropNic(tx, vm, nic);
  else await setNicAttached(tx, vm.id, nic);
  if (outcome.state !== "succeeded" && verb === "detached") await restoreNic(tx, vm, nic);
  await keepOutcome(tx, vm, operation, outcome);
  if (outcome.state !== "succeeded") return;
  await appendEvent(tx, {
    type: `vm.nic.${verb}`,
    subject: { kind: "vm", id: vm.id, name: vm.name },
    projectId: vm.projectId,
    operationId: operation.id,
    data: { nic },
  });
}

/** Operations on NICs of VMs. */
export function vmNicKinds(): readonly AnyOperationKind[] {
  return [anyKind(attachKind), anyKind(detachKind)];
}

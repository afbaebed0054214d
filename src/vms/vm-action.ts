import type { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import type { Capability } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { VmId } from "../lib/ids.ts";
import {
  type Admission,
  type AnyOperationKind,
  anyKind,
  type OperationContext,
  type OperationKind,
  type OperationOutcome,
  type Step,
} from "../operations/operation-kind.ts";
import type { RunPolicy, VmRecord } from "./vm-record.ts";
import { type ActionName, allowedActions, allows, withCondition, withoutConditions } from "./vm-state.ts";
import type { VmInput } from "./vm-steps.ts";
import { getVm, lockVm, setConditions } from "./vm-store.ts";

/** One action on a VM as its file writes it: the request, the state it needs, and its steps with their undo. */
export interface VmActionDefinition<Body extends z.ZodObject, Input extends VmInput> {
  readonly name: ActionName;
  readonly summary: string;
  readonly description: string;
  readonly body: Body;
  /** The operation's input, from the request's body. */
  readonly inputOf: (vmId: VmId, body: z.output<Body>) => Input;
  readonly input: z.ZodType<Input>;
  /** What the host must be able to do for it; null: every host can. */
  readonly capability: Capability | null;
  /** Set in the transaction that queues the operation. */
  readonly runPolicy?: RunPolicy;
  readonly steps: readonly Step<Input>[];
  readonly deadlineSeconds: OperationKind<Input>["deadlineSeconds"];
  readonly forwardOnly?: NonNullable<OperationKind<Input>["forwardOnly"]>;
  readonly overtakes?: NonNullable<OperationKind<Input>["overtakes"]>;
}

/** An action as routes and the worker see it, whatever its body and input are. */
export interface VmAction {
  readonly name: ActionName;
  readonly summary: string;
  readonly description: string;
  readonly body: z.ZodObject;
  readonly capability: Capability | null;
  readonly runPolicy: RunPolicy | null;
  readonly kind: AnyOperationKind;
  /** The operation's input for a request. Throws ZodError for a body that is not the action's. */
  readonly inputFor: (vmId: VmId, body: unknown) => unknown;
}

/** Makes an action of its definition: admitted by state, its outcome kept on the VM. */
export function defineVmAction<Body extends z.ZodObject, Input extends VmInput>(
  definition: VmActionDefinition<Body, Input>,
): VmAction {
  const { name, summary, description, body, inputOf, input, capability, runPolicy, ...rest } = definition;
  const kind: OperationKind<Input> = {
    name: `vm.${name}`,
    input,
    ...rest,
    admit: (tx, operation) => admitAction(name, tx, operation),
    onEnd: recordOutcome,
  };
  return {
    name,
    summary,
    description,
    body,
    capability,
    runPolicy: runPolicy ?? null,
    kind: anyKind(kind),
    inputFor: (vmId, given) => inputOf(vmId, body.parse(given)),
  };
}

/** Refuses at its turn what the VM's state does not allow then. */
async function admitAction(
  action: ActionName,
  tx: Tx,
  operation: OperationContext<VmInput>,
): Promise<Admission> {
  const vm = await getVm(tx, operation.input.vmId);
  if (vm === null)
    return { kind: "refuse", error: new DroverError("not_found", "The VM does not exist any more.") };
  if (allows(action, vm)) return { kind: "run" };
  return { kind: "refuse", error: notAllowed(action, vm) };
}

export function notAllowed(action: ActionName, vm: VmRecord): DroverError {
  const can = allowedActions(vm);
  const instead = can.length === 0 ? "Wait for its operation to end." : `Allowed now: ${can.join(", ")}.`;
  return new DroverError(
    "invalid_state",
    `VM "${vm.name}" is ${vm.power} in phase ${vm.phase}, which does not allow ${action}. ${instead}`,
    { details: { power: vm.power, phase: vm.phase, allowedActions: can } },
  );
}

/** Keeps the outcome on the VM: a failure is a condition until an operation of it succeeds. */
async function recordOutcome(
  tx: Tx,
  operation: OperationContext<VmInput>,
  outcome: OperationOutcome,
): Promise<void> {
  const vm = await lockVm(tx, operation.input.vmId);
  if (vm !== null) await keepOutcome(tx, vm, operation, outcome);
}

/** The same for a VM whose row is locked. */
export async function keepOutcome(
  tx: Tx,
  vm: VmRecord,
  operation: OperationContext<VmInput>,
  outcome: OperationOutcome,
): Promise<void> {
  const cleared = withoutConditions(vm.conditions, ["OperationFailed", "AttentionRequired"]);
  if (outcome.state === "succeeded") {
    if (cleared.length !== vm.conditions.length) await setConditions(tx, vm.id, cleared);
    return;
  }
  if (outcome.state === "cancelled") return;
  const type = outcome.state === "attention" ? "AttentionRequired" : "OperationFailed";
  const condition = {
    type,
    reason: outcome.error.code,
    message: `${operation.kind} ${operation.id}: ${outcome.error.message}`,
    since: new Date().toISOString(),
  } as const;
  await setConditions(tx, vm.id, withCondition(vm.conditions, condition));
}

import type { Condition, ConditionType, VmPhase, VmPower } from "./vm-record.ts";

/** Pure rules on what a VM is: which actions its state allows, and which conditions it carries. */

export const ACTIONS = [
  "start",
  "stop",
  "reboot",
  "reset",
  "pause",
  "resume",
  "save",
  "restore",
  "delete",
] as const;
export type ActionName = (typeof ACTIONS)[number];

/** Powers from which an action can do its work, or find that there is nothing to do. */
const FROM: Readonly<Record<ActionName, ReadonlySet<VmPower>>> = {
  start: new Set(["off", "saved", "crashed", "running"]),
  stop: new Set(["running", "paused", "crashed", "off", "saved", "unknown"]),
  reboot: new Set(["running"]),
  reset: new Set(["running", "paused"]),
  pause: new Set(["running", "paused"]),
  resume: new Set(["paused", "running"]),
  save: new Set(["running", "paused", "saved"]),
  restore: new Set(["saved", "running"]),
  delete: new Set(["running", "paused", "saved", "off", "crashed", "unknown"]),
};

/** Powers in which an action would change nothing: allowed, but not worth offering. */
const REACHED: Readonly<Record<ActionName, readonly VmPower[]>> = {
  start: ["running"],
  // Of a saved one only a forced stop would take something away.
  stop: ["off", "saved"],
  reboot: [],
  reset: [],
  pause: ["paused"],
  resume: ["running"],
  save: ["saved"],
  restore: ["running"],
  delete: [],
};

const ONLY_READY: ReadonlySet<ActionName> = new Set([
  "start",
  "reboot",
  "reset",
  "pause",
  "resume",
  "save",
  "restore",
]);

/** Whether an action may run on a VM of this power and phase. Stop and delete are a way out of every state. */
export function allows(
  action: ActionName,
  vm: { readonly phase: VmPhase; readonly power: VmPower },
): boolean {
  if (vm.phase === "deleting") return action === "delete";
  if (vm.phase !== "ready" && ONLY_READY.has(action)) return false;
  return FROM[action].has(vm.power);
}

/** The actions that would do something now, in a fixed order. */
export function allowedActions(vm: { readonly phase: VmPhase; readonly power: VmPower }): ActionName[] {
  return ACTIONS.filter((action) => allows(action, vm) && !REACHED[action].includes(vm.power));
}

/** The conditions with one added or replaced; an unchanged one keeps its time. */
export function withCondition(conditions: readonly Condition[], condition: Condition): Condition[] {
  const same = conditions.find(({ type }) => type === condition.type);
  const since =
    same?.reason === condition.reason && same.message === condition.message ? same.since : condition.since;
  return [...withoutConditions(conditions, [condition.type]), { ...condition, since }];
}

export function withoutConditions(
  conditions: readonly Condition[],
  types: readonly ConditionType[],
): Condition[] {
  return conditions.filter(({ type }) => !types.includes(type));
}

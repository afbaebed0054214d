import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Condition, ConditionType, VmPhase, VmPower } from "../../../src/vms/vm-record.ts";
import {
  ACTIONS,
  allowedActions,
  allows,
  withCondition,
  withoutConditions,
} from "../../../src/vms/vm-state.ts";

const POWERS: readonly VmPower[] = ["running", "paused", "saved", "off", "crashed", "unknown"];
const PHASES: readonly VmPhase[] = ["provisioning", "ready", "failed", "deleting"];

describe("what a state allows", () => {
  test.each([
    ["running", ["stop", "reboot", "reset", "pause", "save", "delete"]],
    ["paused", ["stop", "reset", "resume", "save", "delete"]],
    ["off", ["start", "delete"]],
    ["saved", ["start", "restore", "delete"]],
    ["crashed", ["start", "stop", "delete"]],
    ["unknown", ["stop", "delete"]],
  ] as const)("offers for a ready VM that is %s: %j", (power, offered) => {
    expect(allowedActions({ phase: "ready", power })).toEqual(offered);
  });

  test("lets every VM be deleted, and stopped unless it is being deleted", () => {
    for (const phase of PHASES)
      for (const power of POWERS) {
        expect(allows("delete", { phase, power })).toBe(true);
        expect(allows("stop", { phase, power })).toBe(phase !== "deleting");
      }
  });

  test("takes a target that is already reached, and does not offer it", () => {
    expect(allows("start", { phase: "ready", power: "running" })).toBe(true);
    expect(allowedActions({ phase: "ready", power: "running" })).not.toContain("start");
  });

  test("offers nothing that it would not allow", () => {
    for (const phase of PHASES)
      for (const power of POWERS)
        for (const action of allowedActions({ phase, power }))
          expect(allows(action, { phase, power })).toBe(true);
  });

  test("lets a VM that is not made yet do nothing that needs it", () => {
    for (const phase of ["provisioning", "failed"] as const)
      for (const action of ACTIONS.filter((name) => name !== "stop" && name !== "delete"))
        expect(allows(action, { phase, power: "off" })).toBe(false);
  });
});

const types: readonly ConditionType[] = ["OperationFailed", "RestartRequired", "DomainMissing"];
const conditionArbitrary: fc.Arbitrary<Condition> = fc.record({
  type: fc.constantFrom(...types),
  reason: fc.constantFrom("a", "b"),
  message: fc.constantFrom("x", "y"),
  since: fc.constantFrom("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"),
});

describe("conditions", () => {
  test("hold one of a type at most; an unchanged one keeps its time", () => {
    fc.assert(
      fc.property(fc.array(conditionArbitrary), (added) => {
        let conditions: Condition[] = [];
        for (const condition of added) {
          const before = conditions.find(({ type }) => type === condition.type);
          conditions = withCondition(conditions, condition);
          const after = conditions.filter(({ type }) => type === condition.type);
          expect(after).toHaveLength(1);
          const same = before?.reason === condition.reason && before.message === condition.message;
          expect(after[0]?.since).toBe(same ? before.since : condition.since);
        }
        expect(withoutConditions(conditions, types)).toEqual([]);
      }),
    );
  });
});

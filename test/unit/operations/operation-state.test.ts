import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  firstOpen,
  isEnded,
  nextStates,
  OPERATION_STATES,
  type OperationMove,
  type OperationState,
  STEP_STATES,
  statesBefore,
  undoOrder,
} from "../../../src/operations/operation-state.ts";

const MOVES: readonly OperationMove[] = [
  "promote",
  "claim",
  "waitForHost",
  "askCancel",
  "succeed",
  "fail",
  "cancel",
  "giveUp",
  "retry",
];

describe("the life of an operation", () => {
  test("nothing leaves an end but a retry of what needs attention", () => {
    for (const state of OPERATION_STATES.filter(isEnded)) {
      const ways = MOVES.filter((move) => nextStates(state, move).length > 0);
      expect(ways).toEqual(state === "attention" ? ["retry"] : []);
    }
  });

  test("from every state that is no end, an end can be reached in at most three moves", () => {
    const reachable = (from: OperationState, left: number): boolean =>
      isEnded(from) ||
      (left > 0 && MOVES.some((move) => nextStates(from, move).some((next) => reachable(next, left - 1))));
    for (const state of OPERATION_STATES) expect(reachable(state, 3)).toBe(true);
  });

  test("what is asked to cancel never runs as if it had not been", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...MOVES), { maxLength: 12 }), (moves) => {
        let state: OperationState = "cancelling";
        for (const move of moves) {
          if (isEnded(state)) return;
          state = nextStates(state, move)[0] ?? state;
          expect(state).not.toBe("running");
          expect(state).not.toBe("pending");
        }
      }),
    );
  });

  test("any walk along the arrows stays among the states, and statesBefore is the reverse of nextStates", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom(...MOVES), fc.nat()), { maxLength: 40 }), (walk) => {
        let state: OperationState = "blocked";
        for (const [move, pick] of walk) {
          const next = nextStates(state, move);
          expect(statesBefore(move).includes(state)).toBe(next.length > 0);
          state = next[pick % Math.max(1, next.length)] ?? state;
          expect(OPERATION_STATES).toContain(state);
        }
      }),
    );
  });
});

const steps = fc.uniqueArray(
  fc.record({ position: fc.nat({ max: 9 }), state: fc.constantFrom(...STEP_STATES) }),
  { selector: (step) => step.position, maxLength: 10 },
);

describe("the steps of an operation", () => {
  test("are undone last first, each once, and never twice", () => {
    fc.assert(
      fc.property(steps, (recorded) => {
        const order = undoOrder(recorded);
        expect(order.map((step) => step.position)).toEqual(
          order.map((step) => step.position).toSorted((a, b) => b - a),
        );
        expect(order.some((step) => step.state === "undone")).toBe(false);
        expect(order).toHaveLength(recorded.filter((step) => step.state !== "undone").length);
      }),
    );
  });

  test("go on at the first that has not succeeded", () => {
    fc.assert(
      fc.property(steps, (recorded) => {
        const open = firstOpen(recorded);
        const state = (position: number): string | undefined =>
          recorded.find((step) => step.position === position)?.state;
        expect(state(open)).not.toBe("succeeded");
        for (let before = 0; before < open; before++) expect(state(before)).toBe("succeeded");
      }),
    );
  });
});

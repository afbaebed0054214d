import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { HypervisorError, type HypervisorErrorReason } from "../../../src/hypervisors/hypervisor.ts";
import { DroverError, ERROR_CODES } from "../../../src/lib/errors.ts";
import { backoffMs, HOST_BACKOFF, STEP_BACKOFF } from "../../../src/operations/operation-backoff.ts";
import {
  attentionError,
  Fenced,
  operationError,
  SendingPaused,
} from "../../../src/operations/operation-errors.ts";
import { type AnyOperationKind, type Overtaking, step } from "../../../src/operations/operation-kind.ts";
import { createKindRegistry, overtakingRank } from "../../../src/operations/operation-kinds.ts";
import { judge } from "../../../src/operations/operation-verdict.ts";

const base = { stop: null, attempts: 1, maxAttempts: 3 } as const;

describe("what follows from a failure", () => {
  test.each([
    ["a lost right", new Fenced(), "drop"],
    [
      "a lost right that a driver wrapped",
      new HypervisorError("failed", "no", { cause: new Fenced() }),
      "drop",
    ],
    [
      "a lease that is not confirmed",
      new HypervisorError("failed", "no", { cause: new SendingPaused() }),
      "release",
    ],
    ["a database that is away", Object.assign(new Error("no"), { code: "ECONNREFUSED" }), "release"],
    ["a silent host", new HypervisorError("unreachable", "no"), "waitForHost"],
    ["a busy domain", new HypervisorError("busy", "no"), "retry"],
    ["a wrong specification", new HypervisorError("invalid-spec", "no"), "final"],
    ["a download that broke", new DroverError("download_failed", "no"), "retry"],
    ["a mistake in the code", new TypeError("no"), "final"],
  ])("%s", (_name, error, verdict) => {
    expect(judge({ ...base, error })).toBe(verdict);
  });

  test("a retryable failure is final at the last attempt", () => {
    expect(judge({ ...base, error: new HypervisorError("busy", "no"), attempts: 3 })).toBe("final");
  });

  test("a stop decides, whatever the call made of it", () => {
    const error = new HypervisorError("busy", "aborted");
    expect(judge({ ...base, error, stop: "cancel" })).toBe("final");
    expect(judge({ ...base, error, stop: "deadline" })).toBe("final");
    expect(judge({ ...base, error, stop: "drain" })).toBe("release");
    expect(judge({ ...base, error, stop: "lost" })).toBe("drop");
  });
});

describe("errors as the client sees them", () => {
  const reasons: readonly HypervisorErrorReason[] = [
    "unreachable",
    "timeout",
    "no-capacity",
    "storage-full",
    "failed",
    "foreign",
  ];
  test.each(reasons)("a driver's %s keeps its message and its cause", (reason) => {
    const error = new HypervisorError(reason, "the host said so", { details: { fact: "x" } });
    const shown = operationError(error);
    expect(shown).toMatchObject({ message: "the host said so", details: { fact: "x" }, cause: error });
    expect(ERROR_CODES).toContain(shown.code);
  });

  test("an unknown error shows nothing of itself", () => {
    expect(operationError(new TypeError("x is undefined"))).toMatchObject({
      code: "internal",
      retry: "never",
    });
    expect(operationError(new TypeError("x is undefined")).message).not.toContain("undefined");
  });

  test("attention names the step whose undo failed", () => {
    const error = attentionError(
      new DroverError("storage_full", "Full."),
      "define",
      new HypervisorError("busy", "Locked."),
    );
    expect(error).toMatchObject({
      code: "storage_full",
      message: 'Full. Undoing the step "define" failed too: Locked.',
    });
  });
});

test("pauses grow to their limit and are spread over their upper half", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (failures, jitter) => {
        for (const backoff of [STEP_BACKOFF, HOST_BACKOFF]) {
          const pause = backoffMs(failures, jitter, backoff);
          expect(pause).toBeGreaterThanOrEqual(Math.round(backoff.firstMs / 2));
          expect(pause).toBeLessThanOrEqual(backoff.longestMs);
          expect(backoffMs(failures + 1, jitter, backoff)).toBeGreaterThanOrEqual(pause);
        }
      },
    ),
  );
});

describe("kinds of operations", () => {
  const kind = (name: string, overtakes?: Overtaking): AnyOperationKind => ({
    name,
    input: z.unknown(),
    steps: [step<unknown, never>({ name: "one", run: () => Promise.resolve(undefined) })],
    deadlineSeconds: 1,
    ...(overtakes === undefined ? {} : { overtakes }),
  });

  test("have names of their own", () => {
    expect(() => createKindRegistry([kind("a"), kind("a")])).toThrow("two operation kinds are named a");
    const one = kind("a");
    expect(() => createKindRegistry([{ ...one, steps: [...one.steps, ...one.steps] }])).toThrow(
      "two steps of a",
    );
    expect(createKindRegistry([kind("a"), kind("b")]).names).toEqual(["a", "b"]);
  });

  test("that are not known are an error that says so", () => {
    expect(() => createKindRegistry([]).get("vm.future")).toThrow("vm.future is unknown");
  });

  test("overtake by rank", () => {
    expect(
      [undefined, false, true, "all" as const].map((rank) => overtakingRank(kind("a", rank), null)),
    ).toEqual([0, 0, 1, 2]);
  });
});

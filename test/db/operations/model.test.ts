import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type OperationId, type VmId } from "../../../src/lib/ids.ts";
import { cancelOperation } from "../../../src/operations/operation-cancel.ts";
import { type OperationKind, type Subject, step } from "../../../src/operations/operation-kind.ts";
import { enqueue } from "../../../src/operations/operation-queue.ts";
import { canBecome, isEnded, type OperationState } from "../../../src/operations/operation-state.ts";
import {
  createEngine,
  type Engine,
  requestFor,
  SHORT_LEASE,
  type TestInput,
  type TestWorker,
  testKind,
  vm,
} from "./harness.ts";
import { onHost } from "./steps-of-tests.ts";

/**
 * Random sequences of what can happen to the engine, against a model of what must hold whatever happens: who may act
 * on a subject, that everything ends, and that what is left on the fake host follows from the ends.
 */

/** Effects on the fake host: for each subject the operations whose mark lies there. */
const world = new Map<string, Set<string>>();
/** Who acts on a subject at this moment. */
const acting = new Map<string, { readonly id: string; readonly mode: string; readonly worker: number }[]>();
const violations: string[] = [];
let generation = 0;

function marks(subject: string): Set<string> {
  const present = world.get(subject) ?? new Set();
  world.set(subject, present);
  return present;
}

function enter(id: string, input: TestInput): () => void {
  const mode = input.word.startsWith("shared") ? "shared" : "exclusive";
  const present = acting.get(input.vmId) ?? [];
  // A zombie of a killed worker may still stand here: it is held back by its checks, not by this list.
  const others = present.filter((one) => one.id !== id && one.worker === generation);
  if (others.some((one) => mode === "exclusive" || one.mode === "exclusive"))
    violations.push(`${id} acts beside ${others.map((one) => one.id).join(", ")}`);
  const entry = { id, mode, worker: generation };
  acting.set(input.vmId, [...present, entry]);
  return () =>
    acting.set(
      input.vmId,
      (acting.get(input.vmId) ?? []).filter((one) => one !== entry),
    );
}

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.random() * 4));

function markStep(
  name: string,
  fails: (word: string) => boolean,
): ReturnType<typeof step<TestInput, { before: boolean }>> {
  return step<TestInput, { before: boolean }>({
    name,
    host: onHost,
    find: async ({ operation }) => ({ before: marks(operation.input.vmId).has(`${operation.id}/${name}`) }),
    run: async ({ operation, call, signal }) => {
      const leave = enter(operation.id, operation.input);
      try {
        await pause();
        call.beforeSend();
        marks(operation.input.vmId).add(`${operation.id}/${name}`);
        await pause();
        if (signal.aborted) throw new HypervisorError("aborted", "aborted");
        if (fails(operation.input.word)) throw new HypervisorError("invalid-spec", "fails");
      } finally {
        leave();
      }
      return undefined;
    },
    undo: async ({ operation, call }) => {
      const leave = enter(operation.id, operation.input);
      try {
        await pause();
        call.beforeSend();
        marks(operation.input.vmId).delete(`${operation.id}/${name}`);
      } finally {
        leave();
      }
    },
  });
}

const change = testKind("model.change", {
  steps: [
    markStep("first", () => false),
    markStep("second", (word) => word.endsWith("fails")),
    markStep("third", () => false),
  ],
});
const overtake = testKind("model.overtake", {
  steps: [markStep("only", () => false)],
  overtakes: true,
  forwardOnly: true,
});

let engine: Engine;
let hostId: HostId;
beforeAll(async () => {
  engine = await createEngine([change, overtake]);
  hostId = await engine.addHost();
  await engine.db
    .$executeRaw`CREATE TABLE state_change (old_state text, new_state text, UNIQUE (old_state, new_state))`;
  await engine.db.$executeRaw`
    CREATE FUNCTION note_state_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO state_change VALUES (OLD.state, NEW.state) ON CONFLICT DO NOTHING;
      RETURN NULL;
    END $$`;
  await engine.db.$executeRaw`
    CREATE TRIGGER note_state_change AFTER UPDATE ON operation FOR EACH ROW EXECUTE FUNCTION note_state_change()`;
});
afterAll(async () => {
  await engine.close();
});

interface Real {
  readonly subjects: readonly VmId[];
  readonly submitted: { readonly id: OperationId; readonly subject: string }[];
  worker: TestWorker;
}

type Command = fc.AsyncCommand<object, Real, boolean>;

function command(name: string, run: (real: Real) => Promise<void>): Command {
  return { check: () => true, run: (_model, real) => run(real), toString: () => name };
}

function submit(
  kind: OperationKind<TestInput>,
  subjectIndex: number,
  mode: Subject["mode"],
  word: string,
): Command {
  return command(`${kind.name} ${subjectIndex} ${mode} ${word}`, async (real) => {
    const vmId = real.subjects[subjectIndex % real.subjects.length];
    if (vmId === undefined) return;
    const subjects: Subject[] = [{ kind: "vm", id: vmId, mode }];
    const request = requestFor(kind, { vmId, hostId, subjects, word: `${mode}-${word}` });
    const { id } = await engine.db.transaction((tx) => enqueue(tx, request, engine.kinds));
    real.submitted.push({ id, subject: vmId });
    real.worker.runner.wake();
  });
}

const index = fc.nat({ max: 2 });
const commands = fc.commands<object, Real, boolean>(
  [
    fc
      .tuple(
        index,
        fc.constantFrom("shared" as const, "exclusive" as const),
        fc.constantFrom("works", "fails"),
      )
      .map(([s, mode, word]) => submit(change, s, mode, word)),
    index.map((s) => submit(overtake, s, "exclusive", "works")),
    fc.nat({ max: 20 }).map((n) =>
      command(`cancel ${n}`, async (real) => {
        const picked = real.submitted.at(-1 - (n % Math.max(1, real.submitted.length)));
        if (picked === undefined) return;
        await engine.db
          .transaction((tx) => cancelOperation(tx, engine.kinds, picked.id))
          .catch((error: unknown) => {
            if ((error as { readonly code?: string }).code !== "invalid_state") throw error;
          });
        real.worker.runner.wake();
      }),
    ),
    fc
      .nat({ max: 15 })
      .map((ms) => command(`wait ${ms}`, () => new Promise((resolve) => setTimeout(resolve, ms)))),
    fc.constant(
      command("kill", async (real) => {
        generation++;
        await real.worker.kill();
        real.worker = await engine.startWorker({ lease: SHORT_LEASE });
      }),
    ),
    fc.constant(
      command("hand over", async (real) => {
        const next = await engine.startWorker({ lease: SHORT_LEASE });
        await real.worker.stop();
        real.worker = next;
      }),
    ),
  ],
  { maxCommands: 25 },
);

test("whatever happens, lanes are kept, everything ends, and only what succeeded is left behind", {
  timeout: 180_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(commands, async (sequence) => {
      const real: Real = {
        subjects: [vm(), vm(), vm()],
        submitted: [],
        worker: await engine.startWorker({ lease: SHORT_LEASE }),
      };
      await fc.asyncModelRun(() => ({ model: {}, real }), sequence);
      for (const { id, subject } of real.submitted) {
        const { state } = await engine.ended(id);
        expect(isEnded(state)).toBe(true);
        expect(state).not.toBe("attention");
        const left = [...marks(subject)].filter((mark) => mark.startsWith(id)).length;
        const steps = await engine.steps(id);
        expect(left).toBe(state === "succeeded" ? steps.length : 0);
      }
      await real.worker.stop();
      expect(violations).toEqual([]);
      const held = await engine.db.$queryRaw<
        unknown[]
      >`SELECT 1 FROM operation_subject WHERE unfinished OR active`;
      expect(held).toEqual([]);
    }),
    { numRuns: 12, endOnFailure: true },
  );
  // Whatever the statements did, they moved along the arrows that operation-state.ts draws.
  const changes = await engine.db.$queryRaw<{ old_state: OperationState; new_state: OperationState }[]>`
      SELECT old_state, new_state FROM state_change`;
  expect(changes.length).toBeGreaterThan(3);
  for (const { old_state, new_state } of changes)
    expect([old_state, new_state, canBecome(old_state, new_state)]).toEqual([old_state, new_state, true]);
});

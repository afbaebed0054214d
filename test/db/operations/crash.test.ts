import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DroverError } from "../../../src/lib/errors.ts";
import { asId, type HostId } from "../../../src/lib/ids.ts";
import type { JsonObject } from "../../../src/lib/json.ts";
import { CRASH_POINTS, type CrashPoint, type CrashProbe } from "../../../src/operations/crash-points.ts";
import { type Step, step } from "../../../src/operations/operation-kind.ts";
import { createEngine, type Engine, SHORT_LEASE, type TestInput, testKind, until, vm } from "./harness.ts";

/** What is on the fake host: it survives every death of a worker, as a real host does. */
const world = new Map<string, string>();
/** Names that were made twice, or removed although another made them. */
const mistakes: string[] = [];

function make(name: string): Step<TestInput> {
  const key = (input: TestInput): string => `${input.vmId}/${name}`;
  return step<TestInput, { existed: boolean }>({
    name,
    host: async (_tx, input) => (input.hostId === null ? null : asId<HostId>(input.hostId)),
    find: async ({ operation }) => ({ existed: world.has(key(operation.input)) }),
    run: async ({ operation, call, resumed }) => {
      call.beforeSend();
      const present = world.get(key(operation.input));
      if (present !== undefined && present !== operation.id && !resumed) mistakes.push(`${name} was there`);
      world.set(key(operation.input), present ?? operation.id);
      return { name };
    },
    record: async (tx, operation) => {
      await tx.$executeRaw`UPDATE host SET unmanaged_cpu_count = unmanaged_cpu_count + 1 WHERE id = ${operation.input.hostId}::uuid`;
    },
    undo: async ({ operation, found, call }) => {
      if (found?.existed === true) return;
      call.beforeSend();
      world.delete(key(operation.input));
    },
    recordUndo: async (tx, operation) => {
      await tx.$executeRaw`UPDATE host SET unmanaged_memory_mib = unmanaged_memory_mib + 1 WHERE id = ${operation.input.hostId}::uuid`;
    },
  });
}

const refuse = step<TestInput, JsonObject>({
  name: "refuse",
  run: async ({ operation }) => {
    if (operation.input.word === "fails") throw new DroverError("invalid_state", "refused on purpose");
    return undefined;
  },
});

const build = testKind("test.build", {
  steps: [make("volume"), make("domain"), refuse],
  admit: async () => ({ kind: "run" }),
});

let engine: Engine;
let hostId: HostId;
beforeAll(async () => {
  engine = await createEngine([build]);
  hostId = await engine.addHost();
});
afterAll(async () => {
  await engine.close();
});
beforeEach(() => {
  world.clear();
  mistakes.length = 0;
});

/** Dies at the nth time that a point is reached; says when. */
function deathAt(
  point: CrashPoint,
  nth: number,
): { readonly probe: CrashProbe; readonly died: Promise<void> } {
  const death = Promise.withResolvers<undefined>();
  let hits = 0;
  return {
    died: death.promise.then(() => undefined),
    probe: (reached) => {
      if (reached !== point || ++hits !== nth) return;
      death.resolve(undefined);
      return new Promise(() => undefined);
    },
  };
}

async function counters(): Promise<{ readonly records: number; readonly undone: number }> {
  const rows = await engine.db.$queryRaw<{ records: number; undone: number }[]>`
    SELECT unmanaged_cpu_count AS records, unmanaged_memory_mib AS undone FROM host WHERE id = ${hostId}::uuid`;
  return rows[0] ?? { records: 0, undone: 0 };
}

const points = CRASH_POINTS.filter((point) => point !== "enqueue.written");
const undoPoints = points.filter((point) => point.startsWith("undo"));
const forwardPoints = points.filter((point) => !point.startsWith("undo"));

describe.each([
  { word: "works", state: "succeeded", left: 2, reachable: forwardPoints },
  { word: "fails", state: "failed", left: 0, reachable: [...forwardPoints, ...undoPoints] },
])("an operation that $word", ({ word, state, left, reachable }) => {
  test.each(reachable)("ends as if nothing had happened after a death at %s", async (point) => {
    const repeated = /^(find|found|run|record|undo)\b/.test(point) ? 2 : 1;
    for (let nth = 1; nth <= repeated; nth++) {
      world.clear();
      const { probe, died } = deathAt(point, nth);
      const first = await engine.startWorker({ probe, lease: SHORT_LEASE });
      const before = await counters();
      const submitted = await engine.submit(build, { vmId: vm(), hostId, word });
      await died;
      await first.kill();
      const second = await engine.startWorker({ lease: SHORT_LEASE });
      const ended = await engine.ended(submitted.id);
      expect(ended).toMatchObject({ state, token: null });
      expect(world.size).toBe(left);
      expect(mistakes).toEqual([]);
      const steps = await engine.steps(submitted.id);
      expect(steps.map((row) => row.state)).toEqual(
        word === "works" ? ["succeeded", "succeeded", "succeeded"] : ["undone", "undone", "failed"],
      );
      const after = await counters();
      // Each record commits exactly once, with its step.
      expect({ records: after.records - before.records, undone: after.undone - before.undone }).toEqual({
        records: 2,
        undone: word === "works" ? 0 : 2,
      });
      await until("no lane is held", async () => {
        const held = await engine.db.$queryRaw<unknown[]>`
          SELECT 1 FROM operation_subject WHERE operation_id = ${submitted.id}::uuid AND (unfinished OR active)`;
        return held.length === 0 ? true : null;
      });
      await second.stop();
    }
  });
});

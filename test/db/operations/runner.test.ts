import { afterAll, beforeAll, expect, test } from "vitest";
import { asId, type HostId } from "../../../src/lib/ids.ts";
import { step } from "../../../src/operations/operation-kind.ts";
import { createEngine, type Engine, type TestInput, testKind, vm } from "./harness.ts";

const log: string[] = [];
const onHost = async (_tx: unknown, input: TestInput): Promise<HostId | null> =>
  input.hostId === null ? null : asId<HostId>(input.hostId);

const twoSteps = testKind("test.two", {
  steps: [
    step<TestInput, { before: string }>({
      name: "first",
      host: onHost,
      find: async () => ({ before: "nothing" }),
      run: async ({ call, found, operation }) => {
        call.beforeSend();
        log.push(`${operation.input.word}:first:${found?.before ?? "?"}`);
        return { made: "first" };
      },
    }),
    step<TestInput, never>({
      name: "second",
      host: onHost,
      run: async ({ operation }) => {
        log.push(`${operation.input.word}:second`);
        return undefined;
      },
    }),
  ],
});

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine([twoSteps]);
});
afterAll(async () => {
  await engine.close();
});

test("runs the steps in order, records each, and ends", async () => {
  const hostId = await engine.addHost();
  await engine.startWorker();
  const { id, state } = await engine.submit(twoSteps, { vmId: vm(), hostId, word: "a" });
  expect(state).toBe("pending");
  const ended = await engine.ended(id);
  expect(ended).toMatchObject({
    state: "succeeded",
    error: null,
    attempt: 1,
    token: null,
    result: { made: "first" },
  });
  expect(log).toEqual(["a:first:nothing", "a:second"]);
  expect(await engine.steps(id)).toMatchObject([
    {
      name: "first",
      state: "succeeded",
      attempts: 1,
      found: { before: "nothing" },
      result: { made: "first" },
    },
    { name: "second", state: "succeeded", attempts: 1 },
  ]);
  const events = await engine.db.$queryRaw<{ type: string }[]>`
    SELECT type FROM event WHERE operation_id = ${id}::uuid ORDER BY row_id`;
  expect(events.map((event) => event.type)).toEqual([
    "operation.created",
    "operation.started",
    "operation.stepSucceeded",
    "operation.stepSucceeded",
    "operation.succeeded",
  ]);
});

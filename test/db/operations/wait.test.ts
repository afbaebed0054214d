import { afterAll, beforeAll, expect, test } from "vitest";
import { type Listener, openListener } from "../../../src/db/listener.ts";
import { newId, type OperationId } from "../../../src/lib/ids.ts";
import { createOperationWaits, type OperationWaits } from "../../../src/operations/operation-wait.ts";
import { silentLog } from "../../fixtures/log.ts";
import { createEngine, type Engine, testKind, vm } from "./harness.ts";
import { Gate, Scripts } from "./steps-of-tests.ts";

const scripts = new Scripts();
const one = testKind("test.one", { steps: [scripts.step("first")] });

let engine: Engine;
let listener: Listener;
let waits: OperationWaits;
beforeAll(async () => {
  engine = await createEngine([one]);
  listener = await openListener({ url: engine.url, logger: silentLog });
  waits = createOperationWaits({ db: engine.db, wakes: listener, logger: silentLog });
  await engine.startWorker();
});
afterAll(async () => {
  waits.close();
  await listener.close();
  await engine.close();
});

test("hundreds of waits are answered when their operations end", async () => {
  const gate = new Gate();
  scripts.set("all", "first", { run: () => gate.pass() });
  const submitted = await Promise.all(
    Array.from({ length: 12 }, () => engine.submit(one, { vmId: vm(), word: "all" })),
  );
  const ids = submitted.map(({ id }) => id);
  let answered = 0;
  const waiting = Array.from({ length: 300 }, async (_, n) => {
    await waits.waitForOperations(n % 3 === 0 ? ids : ids.slice(n % 12, (n % 12) + 1), 60);
    answered++;
  });
  await gate.reached;
  expect(answered).toBe(0);
  gate.open();
  await Promise.all(waiting);
  for (const id of ids) expect((await engine.operation(id)).ended_at).not.toBeNull();
});

test("a wait ends when its time is up or its signal aborts, and at once for what has ended or is gone", async () => {
  const gate = new Gate();
  scripts.set("stuck", "first", { run: () => gate.pass() });
  const { id } = await engine.submit(one, { vmId: vm(), word: "stuck" });
  await waits.waitForOperations([id], 0.05);
  const aborter = new AbortController();
  const aborted = waits.waitForOperations([id], 60, aborter.signal);
  aborter.abort();
  await aborted;
  expect((await engine.operation(id)).ended_at).toBeNull();
  gate.open();
  await engine.ended(id);
  await waits.waitForOperations([id, newId<OperationId>()], 60);
});

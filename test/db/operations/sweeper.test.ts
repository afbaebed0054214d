import { afterAll, beforeAll, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import type { HostId } from "../../../src/lib/ids.ts";
import { retryOperation } from "../../../src/operations/operation-cancel.ts";
import { lockSubjects } from "../../../src/operations/operation-lanes.ts";
import { sweep } from "../../../src/operations/operation-sweeper.ts";
import { silentLog } from "../../fixtures/log.ts";
import { createEngine, type Engine, type TestWorker, testKind, until, vm } from "./harness.ts";
import { Gate, Scripts } from "./steps-of-tests.ts";

/** Deadlines of operations that nobody runs. */

const scripts = new Scripts();
const two = testKind("test.two", { steps: [scripts.step("first"), scripts.step("second")] });

let engine: Engine;
let hostId: HostId;
let worker: TestWorker;
beforeAll(async () => {
  engine = await createEngine([two]);
  hostId = await engine.addHost();
  worker = await engine.startWorker();
});
afterAll(async () => {
  await engine.close();
});

test("an undo that is tried again after attention has a deadline again", async () => {
  scripts.set("again", "first", {
    undo: async () => Promise.reject(new HypervisorError("invalid-state", "cannot")),
  });
  scripts.set("again", "second", {
    run: async () => Promise.reject(new HypervisorError("invalid-spec", "wrong")),
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "again" });
  expect(await engine.ended(id)).toMatchObject({ state: "attention", undoing: true });
  // Nobody can go on, so that only its time can end it.
  worker.silent.add(hostId);
  await engine.db.transaction((tx) => retryOperation(tx, engine.kinds, id));
  await engine.db.$executeRaw`
    UPDATE operation SET undo_deadline = undo_deadline - interval '1 day' WHERE id = ${id}::uuid`;
  expect(await engine.ended(id)).toMatchObject({ state: "attention" });
  worker.silent.delete(hostId);
});

test("two workers that find the same operation past its deadline leave it the time for its undo", async () => {
  const [vmId, gate] = [vm(), new Gate()];
  scripts.set("late", "second", { run: ({ signal }) => gate.pass(signal) });
  const { id } = await engine.submit(two, { vmId, hostId, word: "late" });
  await gate.reached;
  worker.silent.add(hostId);
  const sweeps = await engine.db.transaction(async (tx) => {
    await lockSubjects(tx, [{ kind: "vm", id: vmId, mode: "exclusive" }]);
    await engine.db.$executeRaw`
      UPDATE operation SET token = NULL, worker_id = NULL, epoch = NULL, deadline = now() - interval '1 s'
      WHERE id = ${id}::uuid`;
    const both = [1, 2].map(() => sweep(engine.db, engine.kinds, { undoSeconds: 60, logger: silentLog }));
    await until("both wait for the lane", async () => {
      const waiting = await engine.db.$queryRaw<unknown[]>`
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
      return waiting.length >= 2 ? true : null;
    });
    return both;
  });
  await Promise.all(sweeps);
  expect(await engine.operation(id)).toMatchObject({ ended_at: null, undoing: true });
  worker.silent.delete(hostId);
  expect(await engine.ended(id)).toMatchObject({ state: "failed", error: { code: "deadline_exceeded" } });
});

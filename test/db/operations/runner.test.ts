import { afterAll, beforeAll, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { DroverError } from "../../../src/lib/errors.ts";
import { type HostId, type OperationId } from "../../../src/lib/ids.ts";
import { cancelOperation, retryOperation } from "../../../src/operations/operation-cancel.ts";
import { type OperationOutcome, step } from "../../../src/operations/operation-kind.ts";
import {
  createEngine,
  type Engine,
  type TestInput,
  type TestWorker,
  testKind,
  until,
  vm,
} from "./harness.ts";
import { Gate, onHost, Scripts } from "./steps-of-tests.ts";

const scripts = new Scripts();
const outcomes = new Map<string, OperationOutcome>();
const onEnd = async (
  _tx: unknown,
  operation: { readonly id: string },
  outcome: OperationOutcome,
): Promise<void> => {
  outcomes.set(operation.id, outcome);
};

const recorded = testKind("test.recorded", {
  steps: [
    step<TestInput, { before: string }>({
      name: "first",
      host: onHost,
      find: async () => ({ before: "nothing" }),
      run: async ({ found }) => ({ found: found?.before ?? "?" }),
    }),
    step<TestInput, never>({
      name: "left-out",
      skip: () => true,
      run: async () => Promise.reject(new Error("never")),
    }),
    step<TestInput, never>({ name: "last", host: onHost, run: async () => undefined }),
  ],
});
const two = testKind("test.two", { steps: [scripts.step("first"), scripts.step("second")], onEnd });
const forward = testKind("test.forward", {
  steps: [scripts.step("first"), scripts.step("second")],
  forwardOnly: true,
  onEnd,
});
const quick = testKind("test.quick", {
  steps: [scripts.step("first"), scripts.step("second")],
  deadlineSeconds: 1.2,
  onEnd,
});
const impatient = testKind("test.impatient", {
  steps: [scripts.step("first", { timeoutSeconds: 0.2, maxAttempts: 1 })],
  onEnd,
});
const forcedStop = testKind("test.forcedStop", {
  steps: [scripts.step("stop")],
  overtakes: true,
  forwardOnly: true,
});
const admitted = testKind("test.admitted", {
  steps: [scripts.step("first")],
  admit: async (_tx, { input }) => {
    if (input.word === "done") return { kind: "done" };
    return { kind: "refuse", error: new DroverError("invalid_state", "not now") };
  },
});
const brokenEnd = testKind("test.brokenEnd", {
  steps: [scripts.step("first")],
  onEnd: async () => Promise.reject(new TypeError("a mistake in onEnd")),
});

let engine: Engine;
let hostId: HostId;
let worker: TestWorker;
beforeAll(async () => {
  engine = await createEngine([recorded, two, forward, quick, impatient, forcedStop, admitted, brokenEnd]);
  hostId = await engine.addHost();
  worker = await engine.startWorker({ limits: { undoSeconds: 3 } });
});
afterAll(async () => {
  await engine.close();
});

let words = 0;
const word = (): string => `w${++words}`;

async function cancel(id: OperationId): Promise<string> {
  const result = await engine.db.transaction((tx) => cancelOperation(tx, engine.kinds, id));
  worker.listener.notify("operation_cancel_asked");
  return result;
}

async function eventTypes(id: OperationId): Promise<string[]> {
  const rows = await engine.db.$queryRaw<{ type: string }[]>`
    SELECT type FROM event WHERE operation_id = ${id}::uuid ORDER BY row_id`;
  return rows.map(({ type }) => type.replace("operation.", ""));
}

test("runs the steps in order, records each, leaves out what is to be skipped, and ends", async () => {
  const { id, state } = await engine.submit(recorded, { vmId: vm(), hostId });
  expect(state).toBe("pending");
  const ended = await engine.ended(id);
  expect(ended).toMatchObject({
    state: "succeeded",
    error: null,
    attempt: 1,
    token: null,
    result: { found: "nothing" },
  });
  expect(await engine.steps(id)).toMatchObject([
    {
      name: "first",
      state: "succeeded",
      attempts: 1,
      found: { before: "nothing" },
      result: { found: "nothing" },
    },
    { name: "left-out", state: "succeeded", attempts: 0 },
    { name: "last", state: "succeeded", attempts: 1 },
  ]);
  expect(await eventTypes(id)).toEqual(["created", "started", "stepSucceeded", "stepSucceeded", "succeeded"]);
});

test("a final failure undoes what was done, last step first, the failed one included", async () => {
  const w = word();
  scripts.set(w, "second", {
    run: async () => Promise.reject(new HypervisorError("invalid-spec", "wrong for ever")),
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  expect(await engine.ended(id)).toMatchObject({
    state: "failed",
    error: { code: "hypervisor_error", message: "wrong for ever" },
  });
  expect(scripts.of(w)).toEqual(["first:ran", "second:undone", "first:undone"]);
  expect((await engine.steps(id)).map(({ state }) => state)).toEqual(["undone", "undone"]);
  expect(outcomes.get(id)).toMatchObject({ state: "failed", undone: true });
});

test("a mistake in a step is final and shown as internal, without its message", async () => {
  const w = word();
  scripts.set(w, "first", { run: async () => Promise.reject(new TypeError("secret of the code")) });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  const { state, error } = await engine.ended(id);
  expect(state).toBe("failed");
  expect(error?.code).toBe("internal");
  expect(error?.message).not.toContain("secret");
});

test("a retryable failure is tried again, then succeeds; while it waits it says why", async () => {
  const w = word();
  scripts.set(w, "first", {
    run: async (_context, attempt) =>
      attempt < 3 ? Promise.reject(new HypervisorError("busy", "try later")) : undefined,
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  await until("it waits", async () =>
    (await engine.operation(id)).wait_reason?.code === "conflict" ? true : null,
  );
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", attempt: 3, wait_reason: null });
  expect((await engine.steps(id))[0]).toMatchObject({ state: "succeeded", attempts: 3 });
});

test("a step that takes too long is aborted and counts as a failure that may pass", async () => {
  const w = word();
  const gate = new Gate();
  scripts.set(w, "first", { run: ({ signal }) => gate.pass(signal) });
  const { id } = await engine.submit(impatient, { vmId: vm(), hostId, word: w });
  expect(await engine.ended(id)).toMatchObject({ state: "failed", error: { code: "deadline_exceeded" } });
  expect(scripts.of(w)).toEqual(["first:undone"]);
});

test("what is not admitted at its turn fails, what is reached already succeeds; no step begins", async () => {
  const refused = await engine.submit(admitted, { vmId: vm(), hostId, word: "no" });
  const done = await engine.submit(admitted, { vmId: vm(), hostId, word: "done" });
  expect(await engine.ended(refused.id)).toMatchObject({
    state: "failed",
    error: { code: "invalid_state", message: "not now" },
  });
  expect(await engine.ended(done.id)).toMatchObject({ state: "succeeded" });
  expect([...(await engine.steps(refused.id)), ...(await engine.steps(done.id))]).toEqual([]);
});

test("cancelling a running operation aborts its call, undoes, and lets the next one run", async () => {
  const [w, vmId, gate] = [word(), vm(), new Gate()];
  scripts.set(w, "second", { run: ({ signal }) => gate.pass(signal) });
  const { id } = await engine.submit(two, { vmId, hostId, word: w });
  await gate.reached;
  const next = await engine.submit(two, { vmId, hostId, word: word() });
  expect(next.state).toBe("blocked");
  expect(await cancel(id)).toBe("asked");
  expect(await engine.ended(id)).toMatchObject({ state: "cancelled", error: { code: "cancelled" } });
  expect(scripts.of(w)).toEqual(["first:ran", "second:undone", "first:undone"]);
  expect(await engine.ended(next.id)).toMatchObject({ state: "succeeded" });
});

test("a cancel that comes while the last step takes effect is too late", async () => {
  const [w, gate] = [word(), new Gate()];
  scripts.set(w, "second", { run: () => gate.pass() });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  await gate.reached;
  expect(await cancel(id)).toBe("asked");
  gate.open();
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
});

test("what goes forward only cannot be cancelled once it has begun; a failure needs attention, and can be retried", async () => {
  const [w, vmId, gate] = [word(), vm(), new Gate()];
  scripts.set(w, "second", {
    run: async (_context, attempt) => {
      await gate.pass();
      if (attempt === 1) throw new HypervisorError("invalid-state", "stuck");
    },
  });
  const { id } = await engine.submit(forward, { vmId, hostId, word: w });
  await gate.reached;
  await expect(cancel(id)).rejects.toMatchObject({ code: "invalid_state" });
  const behind = await engine.submit(two, { vmId, hostId, word: word() });
  gate.open();
  expect(await engine.ended(id)).toMatchObject({
    state: "attention",
    error: { code: "invalid_state", message: "stuck" },
  });
  expect(await engine.ended(behind.id)).toMatchObject({ state: "succeeded" });
  await engine.db.transaction((tx) => retryOperation(tx, engine.kinds, id));
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", error: null });
  expect(scripts.of(w)).toEqual(["first:ran", "second:ran"]);
});

test("a first step that refuses ends a forward-only operation as failed", async () => {
  const w = word();
  scripts.set(w, "first", {
    run: async () => Promise.reject(new DroverError("guest_did_not_stop", "it runs on")),
  });
  const { id } = await engine.submit(forward, { vmId: vm(), hostId, word: w });
  expect(await engine.ended(id)).toMatchObject({ state: "failed", error: { code: "guest_did_not_stop" } });
});

test("an undo that fails for good needs attention, frees the lane, and a retry undoes the rest", async () => {
  const [w, vmId] = [word(), vm()];
  scripts.set(w, "first", {
    undo: async (attempt) =>
      attempt === 1 ? Promise.reject(new HypervisorError("invalid-state", "cannot")) : undefined,
  });
  scripts.set(w, "second", { run: async () => Promise.reject(new HypervisorError("invalid-spec", "wrong")) });
  const { id } = await engine.submit(two, { vmId, hostId, word: w });
  expect(await engine.ended(id)).toMatchObject({
    state: "attention",
    undoing: true,
    error: { message: "wrong" },
  });
  expect(await engine.steps(id)).toMatchObject([
    { state: "undoFailed", undo_error: { code: "invalid_state" } },
    { state: "undone" },
  ]);
  expect(outcomes.get(id)).toMatchObject({ state: "attention", undone: false });
  expect((await engine.submit(two, { vmId, hostId, word: word() })).state).toBe("pending");
  await engine.db.transaction((tx) => retryOperation(tx, engine.kinds, id));
  expect(await engine.ended(id)).toMatchObject({ state: "failed", error: { message: "wrong" } });
  expect(scripts.of(w)).toEqual(["first:ran", "second:undone", "first:undone"]);
  await expect(engine.db.transaction((tx) => retryOperation(tx, engine.kinds, id))).rejects.toMatchObject({
    code: "invalid_state",
  });
});

test("an undo that may succeed later is tried again until its time is over", async () => {
  const [passes, stays] = [word(), word()];
  const fail = async (): Promise<never> => Promise.reject(new HypervisorError("invalid-spec", "wrong"));
  scripts.set(passes, "second", {
    run: fail,
    undo: async (attempt) => (attempt < 3 ? Promise.reject(new HypervisorError("busy", "later")) : undefined),
  });
  scripts.set(stays, "second", {
    run: fail,
    undo: async () => Promise.reject(new HypervisorError("busy", "never")),
  });
  const first = await engine.submit(two, { vmId: vm(), hostId, word: passes });
  const second = await engine.submit(two, { vmId: vm(), hostId, word: stays });
  expect(await engine.ended(first.id)).toMatchObject({ state: "failed" });
  expect(await engine.ended(second.id)).toMatchObject({ state: "attention" });
});

test("an operation past its deadline is aborted and undone", async () => {
  const [w, gate] = [word(), new Gate()];
  scripts.set(w, "second", { run: ({ signal }) => gate.pass(signal) });
  const { id } = await engine.submit(quick, { vmId: vm(), hostId, word: w });
  expect(await engine.ended(id)).toMatchObject({ state: "failed", error: { code: "deadline_exceeded" } });
  expect(scripts.of(w)).toEqual(["first:ran", "second:undone", "first:undone"]);
});

test("work for a silent host waits with its reason, goes on when the host is back, and counts no attempt", async () => {
  const w = word();
  worker.silent.add(hostId);
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  await until("it says why", async () =>
    (await engine.operation(id)).wait_reason?.code === "host_unreachable" ? true : null,
  );
  worker.silent.delete(hostId);
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", attempt: 1, wait_reason: null });
});

test("a host that falls silent during a step does not cost an attempt of the step", async () => {
  const w = word();
  scripts.set(w, "first", {
    run: async (_context, attempt) =>
      attempt < 8 ? Promise.reject(new HypervisorError("unreachable", "gone")) : undefined,
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: w });
  await until("it waits", async () =>
    (await engine.operation(id)).wait_reason?.code === "host_unreachable" ? true : null,
  );
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", attempt: 1 });
  expect((await engine.steps(id))[0]).toMatchObject({ attempts: 1 });
});

test("work for a silent host is given up at its deadline: untouched work fails, begun work needs attention in the end", async () => {
  const silentHost = await engine.addHost();
  const [w, gate] = [word(), new Gate()];
  scripts.set(w, "second", { run: ({ signal }) => gate.pass(signal) });
  await until("the host is owned", async () => {
    const rows = await engine.db.$queryRaw<
      { owner_id: string | null }[]
    >`SELECT owner_id FROM host WHERE id = ${silentHost}::uuid`;
    return rows[0]?.owner_id ?? null;
  });
  const begun = await engine.submit(quick, { vmId: vm(), hostId: silentHost, word: w });
  await gate.reached;
  worker.silent.add(silentHost);
  const untouched = await engine.submit(quick, { vmId: vm(), hostId: silentHost, word: word() });
  expect(await engine.ended(untouched.id)).toMatchObject({
    state: "failed",
    error: { code: "deadline_exceeded" },
    started_at: null,
  });
  expect(await engine.ended(begun.id)).toMatchObject({
    state: "attention",
    error: { code: "deadline_exceeded" },
  });
  worker.silent.delete(silentHost);
});

test("a forced stop aborts what runs, waits until that is undone, then runs", async () => {
  const [w, stopWord, vmId, gate] = [word(), word(), vm(), new Gate()];
  scripts.set(w, "second", { run: ({ signal }) => gate.pass(signal) });
  const running = await engine.submit(two, { vmId, hostId, word: w });
  await gate.reached;
  const stop = await engine.submit(forcedStop, { vmId, hostId, word: stopWord });
  expect(await engine.ended(stop.id)).toMatchObject({ state: "succeeded" });
  expect(await engine.operation(running.id)).toMatchObject({
    state: "cancelled",
    error: { code: "superseded" },
  });
  const order = scripts.log.filter((line) => line.startsWith(`${w}/`) || line.startsWith(`${stopWord}/`));
  expect(order).toEqual([
    `${w}/first:ran`,
    `${w}/second:undone`,
    `${w}/first:undone`,
    `${stopWord}/stop:ran`,
  ]);
});

test("an operation whose end always fails is set aside instead of blocking its lane for ever", async () => {
  const vmId = vm();
  const { id } = await engine.submit(brokenEnd, { vmId, hostId, word: word() });
  // Seven failures lie behind it: the pauses between them are not what this is about.
  await until("it has failed once", async () => ((await engine.operation(id)).attempt >= 1 ? true : null));
  await engine.db
    .$executeRaw`UPDATE operation SET attempt = 7, not_before = now() WHERE id = ${id}::uuid AND ended_at IS NULL`;
  expect(await engine.ended(id)).toMatchObject({ state: "attention", error: { code: "internal" } });
  expect((await engine.submit(two, { vmId, hostId, word: word() })).state).toBe("pending");
});

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { asId, type HostId } from "../../../src/lib/ids.ts";
import { cancelOperation } from "../../../src/operations/operation-cancel.ts";
import { step } from "../../../src/operations/operation-kind.ts";
import {
  createEngine,
  type Engine,
  SHORT_LEASE,
  type TestInput,
  type TestWorker,
  testKind,
  until,
  vm,
} from "./harness.ts";
import { Gate, onHost, Scripts } from "./steps-of-tests.ts";

/** Several workers on one database: fencing, takeover, hand-over and moves from host to host. */

const scripts = new Scripts();
const ranOn: string[] = [];
const zombieSends: unknown[] = [];
let gate = new Gate();
const recordedBy: string[] = [];

/** Waits at the gate whatever its signal says, as a frozen process does, then tries to send and to write. */
const stubborn = testKind("test.stubborn", {
  steps: [
    step<TestInput, never>({
      name: "first",
      host: onHost,
      run: async (context) => {
        const { call, resumed } = context;
        if (resumed) return undefined;
        await gate.pass();
        try {
          call.beforeSend();
          zombieSends.push("sent");
        } catch (error) {
          zombieSends.push(error);
        }
        await context.transaction(async () => {
          zombieSends.push("written");
        });
        return undefined;
      },
      record: async (_tx, operation) => {
        recordedBy.push(operation.id);
      },
    }),
  ],
});
const two = testKind("test.two", { steps: [scripts.step("first"), scripts.step("second")] });
const order: string[] = [];
const ordered = testKind("test.ordered", {
  steps: [
    step<TestInput, never>({
      name: "note",
      host: onHost,
      run: async ({ operation }) => {
        order.push(`${operation.input.vmId}:${operation.input.word}`);
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
        order.push(`${operation.input.vmId}:${operation.input.word}`);
        return undefined;
      },
    }),
  ],
});
const migrate = testKind("test.migrate", {
  steps: ["source", "target", "source-again"].map((name) =>
    step<TestInput, never>({
      name,
      host: async (_tx, input) => asId<HostId>(name === "target" ? input.word : (input.hostId ?? "")),
      run: async () => {
        ranOn.push(name);
        if (name === "source-again") throw new HypervisorError("invalid-spec", "wrong");
        return undefined;
      },
      undo: async () => {
        ranOn.push(`undo ${name}`);
      },
    }),
  ),
});

let engine: Engine;
let hostId: HostId;
beforeEach(async () => {
  engine = await createEngine([stubborn, two, ordered, migrate]);
  hostId = await engine.addHost();
  gate = new Gate();
  scripts.clear();
  zombieSends.length = 0;
  recordedBy.length = 0;
});
afterEach(async () => {
  gate.open();
  await engine.close();
});

describe("a worker that lost its right in the middle of a step", () => {
  const thefts: readonly (readonly [string, (worker: TestWorker, id: string) => Promise<unknown>])[] = [
    [
      "its token is stolen",
      (_worker, id) =>
        engine.db.$executeRaw`UPDATE operation SET token = gen_random_uuid() WHERE id = ${id}::uuid`,
    ],
    [
      "its lease ran out",
      (worker) =>
        engine.db
          .$executeRaw`UPDATE worker SET lease_expires_at = now() - interval '1 s' WHERE id = ${worker.lease.workerId}::uuid`,
    ],
    [
      "its host has a new epoch",
      () => engine.db.$executeRaw`UPDATE host SET epoch = epoch + 1 WHERE id = ${hostId}::uuid`,
    ],
    [
      "its host has a new owner",
      () => engine.db.$executeRaw`UPDATE host SET owner_id = gen_random_uuid() WHERE id = ${hostId}::uuid`,
    ],
  ];
  test.each(thefts)("writes nothing when %s", async (_name, steal) => {
    // Nobody renews or reaps here, so that only the checks of the writes themselves can hold it back.
    const worker = await engine.startWorker({
      lease: { leaseSeconds: 60, sendSeconds: 59, renewSeconds: 50, reapSeconds: 50 },
    });
    const { id } = await engine.submit(stubborn, { vmId: vm(), hostId });
    await gate.reached;
    await steal(worker, id);
    gate.open();
    await until("the zombie is gone", () => (worker.runner.running() === 0 ? true : null));
    expect(zombieSends).not.toContain("written");
    expect(recordedBy).toEqual([]);
    const events = await engine.db.$queryRaw<
      { type: string }[]
    >`SELECT type FROM event WHERE operation_id = ${id}::uuid`;
    expect(events.map(({ type }) => type).toSorted()).toEqual(["operation.created", "operation.started"]);
    expect(await engine.steps(id)).toMatchObject([{ state: "running" }]);
  });

  test("sends nothing and writes nothing once its lease is over by its own clock, and another one finishes", async () => {
    let frozenMs = 0;
    const clock = { now: () => new Date(), monotonicMs: () => performance.now() + frozenMs };
    await engine.startWorker({ lease: { ...SHORT_LEASE, clock } });
    const { id } = await engine.submit(stubborn, { vmId: vm(), hostId });
    await gate.reached;
    // As after SIGSTOP and SIGCONT: time has passed, and the first thing that runs is the step.
    frozenMs = 60_000;
    gate.open();
    await until("it tried", () => (zombieSends.length > 0 ? true : null));
    expect(zombieSends).toEqual([expect.objectContaining({ name: "Fenced" })]);
    await engine.startWorker({ lease: SHORT_LEASE });
    expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
    expect(recordedBy).toEqual([id]);
  });
});

test("a worker sends nothing while its lease is not renewed, though the lease is not over yet", async () => {
  let frozenMs = 0;
  const clock = { now: () => new Date(), monotonicMs: () => performance.now() + frozenMs };
  // No renewal comes in between.
  const lease = { leaseSeconds: 120, sendSeconds: 60, renewSeconds: 50, reapSeconds: 50, clock };
  await engine.startWorker({ lease });
  const { id } = await engine.submit(stubborn, { vmId: vm(), hostId });
  await gate.reached;
  frozenMs = 60_000;
  gate.open();
  await engine.ended(id);
  expect(zombieSends[0]).toMatchObject({ name: "SendingPaused" });
});

test("a cancel that nobody was woken for is noticed before the next step", async () => {
  // It looks for nothing by itself, so only the record of the step can tell it.
  const worker = await engine.startWorker({ limits: { pollSeconds: 600 } });
  scripts.set("c", "first", { run: () => gate.pass() });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "c" });
  worker.runner.wake();
  await gate.reached;
  await engine.db.transaction((tx) => cancelOperation(tx, engine.kinds, id));
  gate.open();
  expect(await engine.ended(id)).toMatchObject({ state: "cancelled" });
  expect(scripts.of("c")).toEqual(["first:ran", "first:undone"]);
});

test("a killed worker's operations are taken over from their recorded steps", async () => {
  const first = await engine.startWorker({ lease: SHORT_LEASE });
  scripts.set("k", "second", { run: async (_context, attempt) => (attempt === 1 ? gate.pass() : undefined) });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "k" });
  await gate.reached;
  await first.kill();
  await engine.startWorker({ lease: SHORT_LEASE });
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", attempt: 2 });
  expect(scripts.of("k")).toEqual(["first:ran", "second:ran"]);
});

test("a worker whose session breaks but who renews is not declared dead", async () => {
  const first = await engine.startWorker({ lease: SHORT_LEASE });
  await engine.startWorker({ lease: SHORT_LEASE, ownHosts: false });
  await first.listener.close();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(first.lease.isHeld()).toBe(true);
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "b" });
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
});

test("a worker whose row was taken away learns that its lease is lost", async () => {
  const first = await engine.startWorker({ lease: SHORT_LEASE });
  const lost = new Promise<string>((resolve) => {
    first.lease.onLost(resolve);
  });
  await engine.db.$executeRaw`DELETE FROM worker WHERE id = ${first.lease.workerId}::uuid`;
  expect(await lost).toContain("dead");
  expect(first.lease.isHeld()).toBe(false);
  expect(() => {
    first.lease.assertMaySend();
  }).toThrow(expect.objectContaining({ name: "Fenced" }));
});

test("draining lets the step that runs end, gives the operation up, and another worker goes on", async () => {
  const first = await engine.startWorker();
  scripts.set("d", "first", { run: () => gate.pass() });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "d" });
  await gate.reached;
  const stopping = first.stop();
  gate.open();
  await stopping;
  expect(await engine.operation(id)).toMatchObject({ state: "running", token: null, attempt: 0 });
  expect(scripts.of("d")).toEqual(["first:ran"]);
  await engine.startWorker();
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded", attempt: 1 });
  expect(scripts.of("d")).toEqual(["first:ran", "second:ran"]);
});

test("a worker that takes an operation again while its old call still hangs knows both", async () => {
  const [old, again] = [new Gate(), new Gate()];
  const worker = await engine.startWorker();
  scripts.set("a", "first", {
    run: ({ signal }, attempt) => (attempt === 1 ? old.pass() : again.pass(signal)),
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "a" });
  await old.reached;
  await worker.lose(hostId);
  await again.reached;
  expect(worker.runner.running()).toBe(2);
  old.open();
  await until("the old one has ended", () => (worker.runner.running() === 1 ? true : null));
  await worker.runner.stop({ drainSeconds: 0 });
  expect(await engine.operation(id)).toMatchObject({ state: "running", token: null });
  expect(scripts.of("a")).toEqual(["first:ran"]);
});

test.each(["claim.before", "claim.committed"] as const)(
  "a worker told to stop at %s begins nothing and counts no attempt",
  async (point) => {
    // From its first look on: one that had passed the point already could take what is submitted below.
    const first = await engine.startWorker({
      probe: async (at) => {
        if (at === point) await gate.pass();
      },
    });
    const { id } = await engine.submit(two, { vmId: vm(), hostId, word: `s-${point}` });
    await gate.reached;
    const stopping = first.stop();
    gate.open();
    await stopping;
    const given = await engine.operation(id);
    expect(given).toMatchObject({ state: "pending", token: null, attempt: 0 });
    expect(given.started_at === null).toBe(point === "claim.before");
    expect(scripts.of(`s-${point}`)).toEqual([]);
  },
);

test("draining aborts a step that does not end in time; nothing is undone", async () => {
  const first = await engine.startWorker();
  scripts.set("e", "second", {
    run: ({ signal }, attempt) => (attempt === 1 ? gate.pass(signal) : Promise.resolve()),
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "e" });
  await gate.reached;
  await first.runner.stop({ drainSeconds: 0.1 });
  expect(await engine.operation(id)).toMatchObject({ state: "running", token: null });
  await first.stop();
  await engine.startWorker();
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
  expect(scripts.of("e")).toEqual(["first:ran", "second:ran"]);
});

describe("a host that is released", () => {
  test("has its step ended, its operation given up, and nothing taken until it is handed over", async () => {
    const other = await engine.addHost();
    const first = await engine.startWorker();
    scripts.set("r", "first", { run: () => gate.pass() });
    const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "r" });
    await gate.reached;
    const handedOver = new Gate();
    const releasing = first.runner.releaseHost(hostId, {
      drainSeconds: 60,
      handOver: () => handedOver.pass(),
    });
    // Other hosts go on meanwhile, in a steady stream of looks.
    const before = await engine.submit(two, { vmId: vm(), hostId: other, word: "other" });
    expect(await engine.ended(before.id)).toMatchObject({ state: "succeeded" });
    expect(first.runner.runningOn(hostId)).toBe(1);
    gate.open();
    await handedOver.reached;
    expect(await engine.operation(id)).toMatchObject({ state: "running", token: null, attempt: 0 });
    const waiting = await engine.submit(two, { vmId: vm(), hostId, word: "waits" });
    const after = await engine.submit(two, { vmId: vm(), hostId: other, word: "after" });
    expect(await engine.ended(after.id)).toMatchObject({ state: "succeeded" });
    expect(await engine.operation(waiting.id)).toMatchObject({ state: "pending", started_at: null });
    expect(scripts.of("r")).toEqual(["first:ran"]);
    // Kept after all: what waited goes on here.
    handedOver.open();
    await releasing;
    for (const one of [id, waiting.id])
      expect(await engine.ended(one)).toMatchObject({ state: "succeeded", attempt: 1 });
    expect(scripts.of("r")).toEqual(["first:ran", "second:ran"]);
  });

  test("has a step aborted that does not end in time, and nothing is undone", async () => {
    const first = await engine.startWorker();
    scripts.set("aborted", "second", {
      run: ({ signal }, attempt) => (attempt === 1 ? gate.pass(signal) : Promise.resolve()),
    });
    const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "aborted" });
    await gate.reached;
    await first.runner.releaseHost(hostId, {
      drainSeconds: 0.1,
      handOver: async () => {
        expect(await engine.operation(id)).toMatchObject({ state: "running", token: null });
      },
    });
    expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
    expect(scripts.of("aborted")).toEqual(["first:ran", "second:ran"]);
  });

  test("gives back what a claim brings that was under way", async () => {
    const handedOver = new Gate();
    const first = await engine.startWorker();
    let releasing: Promise<void> = Promise.resolve();
    const { id } = await engine.db.transaction(async (tx) => {
      // Holds every claim up in the middle.
      await tx.$executeRaw`LOCK TABLE worker IN ACCESS EXCLUSIVE MODE`;
      const record = await engine.submit(two, { vmId: vm(), hostId, word: "claimed" });
      await until("a claim is under way", async () => {
        // Not in the transaction, which would see the first answer again and again.
        const claims = await engine.db.$queryRaw<unknown[]>`
          SELECT pid FROM pg_stat_activity WHERE datname = current_database()
            AND query LIKE '%RECURSIVE me%' AND wait_event_type = 'Lock'`;
        return claims.length > 0 ? true : null;
      });
      releasing = first.runner.releaseHost(hostId, {
        drainSeconds: 60,
        handOver: () => handedOver.pass(),
      });
      return record;
    });
    await handedOver.reached;
    expect(await engine.operation(id)).toMatchObject({ state: "pending", token: null, attempt: 0 });
    expect(scripts.of("claimed")).toEqual([]);
    handedOver.open();
    await releasing;
    expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
  });
});

test("two workers never run two operations of one VM at once, and keep their order", async () => {
  const hosts = [hostId, await engine.addHost()];
  const first = await engine.startWorker({ ownHosts: false });
  await first.own(hostId);
  await engine.startWorker();
  const vms = Array.from({ length: 8 }, () => vm());
  const submitted = new Map<string, string[]>(vms.map((vmId) => [vmId, []]));
  const ids = await Promise.all(
    vms.map(async (vmId, v) => {
      const last = [];
      for (let n = 0; n < 12; n++) {
        const host = hosts[(n + v) % 2];
        const record = await engine.submit(ordered, {
          vmId,
          word: String(n),
          ...(host === undefined ? {} : { hostId: host }),
        });
        submitted.get(vmId)?.push(`${vmId}:${n}`, `${vmId}:${n}`);
        last.push(record.id);
      }
      return last;
    }),
  );
  for (const id of ids.flat()) expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
  for (const vmId of vms) expect(order.filter((line) => line.startsWith(vmId))).toEqual(submitted.get(vmId));
});

test("an operation moves with its steps from host to host and back, and so does its undo", async () => {
  const target = await engine.addHost();
  const first = await engine.startWorker({ ownHosts: false });
  await first.own(hostId);
  const second = await engine.startWorker({ ownHosts: false });
  await second.own(target);
  const { id } = await engine.submit(migrate, { vmId: vm(), hostId, word: target });
  expect(await engine.ended(id)).toMatchObject({ state: "failed", attempt: 1 });
  expect(ranOn).toEqual([
    "source",
    "target",
    "source-again",
    "undo source-again",
    "undo target",
    "undo source",
  ]);
});

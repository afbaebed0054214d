import { afterEach, beforeEach, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import type { HostId, OperationId } from "../../../src/lib/ids.ts";
import { step } from "../../../src/operations/operation-kind.ts";
import {
  createEngine,
  type Engine,
  POOL_SIZE,
  SHORT_LEASE,
  type TestInput,
  testKind,
  until,
  vm,
} from "./harness.ts";
import { Gate, onHost, Scripts } from "./steps-of-tests.ts";

/** What a host, a client or a busy database may take from others: nothing beyond its own share. */

const scripts = new Scripts();
const two = testKind("test.two", { steps: [scripts.step("first"), scripts.step("second")] });
let engine: Engine;
let hostId: HostId;
let gate = new Gate();
beforeEach(async () => {
  engine = await createEngine([two]);
  hostId = await engine.addHost();
  gate = new Gate();
});
afterEach(async () => {
  gate.open();
  await engine.close();
});

test("at most so many operations run at once on one host, and a full host takes nothing from another", async () => {
  const other = await engine.addHost();
  await engine.startWorker({ limits: { perHost: 2, perWorker: 3 } });
  let [now, most] = [0, 0];
  const slow = async (): Promise<void> => {
    most = Math.max(most, ++now);
    await gate.pass();
    now--;
  };
  for (let n = 0; n < 6; n++) {
    scripts.set(`s${n}`, "first", { run: slow });
    await engine.submit(two, { vmId: vm(), hostId, word: `s${n}` });
  }
  await gate.reached;
  const { id } = await engine.submit(two, { vmId: vm(), hostId: other, word: "free" });
  expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
  expect(most).toBe(2);
  gate.open();
});

test("a host that hangs costs another one no slot, no connection of the database, and nothing of its order", async () => {
  const hung = hostId;
  const other = await engine.addHost();
  const perHost = 8;
  // The pool has fewer connections than the host has operations that hang.
  await engine.startWorker({ limits: { perHost, perWorker: 2 * perHost } });
  const never = new Gate();
  const queued = [];
  for (let n = 0; n < 60; n++) {
    scripts.set(`hung${n}`, "first", { run: ({ signal }) => never.pass(signal) });
    queued.push(await engine.submit(two, { vmId: vm(), hostId: hung, word: `hung${n}` }));
  }
  await never.reached;
  let [now, most] = [0, 0];
  const ids = [];
  for (let n = 0; n < perHost; n++) {
    scripts.set(`o${n}`, "first", {
      run: async () => {
        most = Math.max(most, ++now);
        if (now === perHost) gate.open();
        await gate.pass();
      },
    });
    ids.push(await engine.submit(two, { vmId: vm(), hostId: other, word: `o${n}` }));
  }
  for (let n = 0; n < 40; n++)
    ids.push(await engine.submit(two, { vmId: vm(), hostId: other, word: `more${n}` }));
  for (const { id } of ids) expect(await engine.ended(id)).toMatchObject({ state: "succeeded" });
  expect(most).toBe(perHost);
  const states = await Promise.all(queued.map(async ({ id }) => (await engine.operation(id)).state));
  expect(states.filter((state) => state === "running")).toHaveLength(perHost);
  expect(states.filter((state) => state === "pending")).toHaveLength(queued.length - perHost);
  never.open();
});

test.each([
  ["its step's time is over", ({ signal }: { readonly signal: AbortSignal }) => gate.pass(signal), 0.1],
  [
    "the driver says so",
    () => Promise.reject(new HypervisorError("timeout", "no answer", { retryable: false })),
    60,
  ],
] as const)("a host whose call got no answer is suspected: %s", async (_how, run, timeoutSeconds) => {
  const kind = testKind("test.late", {
    steps: [
      step<TestInput, never>({
        name: "late",
        host: onHost,
        timeoutSeconds,
        maxAttempts: 1,
        run: async (context) => {
          await run(context);
          return undefined;
        },
      }),
    ],
  });
  const own = await createEngine([kind]);
  try {
    const host = await own.addHost();
    const worker = await own.startWorker();
    const { id } = await own.submit(kind, { vmId: vm(), hostId: host });
    expect(await own.ended(id)).toMatchObject({ state: "failed", error: { code: "deadline_exceeded" } });
    expect(worker.suspected).toEqual([host]);
  } finally {
    await own.close();
  }
});

test("one actor's many operations do not starve another's one", async () => {
  await engine.startWorker({ limits: { perHost: 1 } });
  scripts.set("hold", "first", { run: () => gate.pass() });
  await engine.submit(two, { vmId: vm(), hostId, word: "hold" });
  await gate.reached;
  const greedy = [];
  for (let n = 0; n < 40; n++)
    greedy.push(await engine.submit(two, { vmId: vm(), hostId, word: `greedy${n}`, actor: "token:greedy" }));
  const modest = await engine.submit(two, { vmId: vm(), hostId, word: "modest", actor: "token:modest" });
  gate.open();
  for (const { id } of [...greedy, modest]) await engine.ended(id);
  const starts = scripts.log.filter((line) => /^(greedy|modest).*\/first:ran$/.test(line));
  expect(starts.indexOf("modest/first:ran")).toBeLessThan(10);
});

test("a worker keeps its lease while every connection of its pool waits for something", async () => {
  const kind = testKind("test.waiting", {
    steps: [
      step<TestInput, never>({
        name: "write",
        host: onHost,
        run: async () => undefined,
        record: async (tx) => {
          await tx.$executeRaw`SELECT pg_advisory_xact_lock(4713)`;
        },
      }),
    ],
  });
  const own = await createEngine([kind]);
  try {
    const host = await own.addHost();
    const worker = await own.startWorker({ lease: SHORT_LEASE, limits: { perHost: 50 } });
    const ids: OperationId[] = [];
    await own.db.transaction(
      async (tx) => {
        await tx.$executeRaw`SELECT pg_advisory_xact_lock(4713)`;
        for (let n = 0; n < 20; n++) ids.push((await own.submit(kind, { vmId: vm(), hostId: host })).id);
        await until("nothing more can wait", async () => {
          const rows = await tx.$queryRaw<{ count: number }[]>`
            SELECT count(*)::int AS count FROM pg_locks
            WHERE locktype = 'advisory' AND objid = 4713 AND NOT granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
          return rows[0]?.count === POOL_SIZE ? true : null;
        });
        await new Promise((resolve) => setTimeout(resolve, SHORT_LEASE.leaseSeconds * 1_500));
        expect(worker.lease.isHeld()).toBe(true);
      },
      { timeoutSeconds: 60 },
    );
    for (const id of ids) expect(await own.ended(id)).toMatchObject({ state: "succeeded", attempt: 1 });
  } finally {
    await own.close();
  }
});

test("a record that another transaction held up for too long is written later: nothing failed", async () => {
  let tries = 0;
  const kind = testKind("test.heldUp", {
    steps: [
      step<TestInput, never>({
        name: "write",
        host: onHost,
        run: async () => undefined,
        record: async (tx) => {
          if (++tries > 1) return;
          await tx.$executeRaw`SET LOCAL lock_timeout = '20ms'`;
          await tx.$executeRaw`SELECT pg_advisory_xact_lock(4712)`;
        },
      }),
    ],
  });
  const own = await createEngine([kind]);
  try {
    const host = await own.addHost();
    await own.startWorker();
    await own.db.transaction(
      async (tx) => {
        await tx.$executeRaw`SELECT pg_advisory_xact_lock(4712)`;
        const { id } = await own.submit(kind, { vmId: vm(), hostId: host });
        expect(await own.ended(id)).toMatchObject({ state: "succeeded", attempt: 1 });
      },
      { timeoutSeconds: 60 },
    );
    expect(tries).toBe(2);
  } finally {
    await own.close();
  }
});

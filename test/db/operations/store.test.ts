import { afterAll, beforeAll, expect, test } from "vitest";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, newId, type OperationId } from "../../../src/lib/ids.ts";
import { cleanHistory } from "../../../src/operations/history-cleaner.ts";
import { OperationSchema, type OperationView } from "../../../src/operations/operation-schemas.ts";
import { getOperation, listOperations, operationPageKey } from "../../../src/operations/operation-store.ts";
import { silentLog } from "../../fixtures/log.ts";
import { createEngine, type Engine, testKind, vm } from "./harness.ts";
import { Gate, Scripts } from "./steps-of-tests.ts";

const scripts = new Scripts();
const two = testKind("test.two", { steps: [scripts.step("first"), scripts.step("second")] });
const forward = testKind("test.forward", { steps: [scripts.step("first")], forwardOnly: true });

let engine: Engine;
let hostId: HostId;
beforeAll(async () => {
  engine = await createEngine([two, forward]);
  hostId = await engine.addHost();
  await engine.startWorker();
});
afterAll(async () => {
  await engine.close();
});

async function view(id: OperationId): Promise<OperationView> {
  const found = await getOperation(engine.db, id);
  if (found === null) throw new Error("not found");
  return OperationSchema.parse(found.view);
}

test("shows an operation through its life", async () => {
  const [vmId, gate] = [vm(), new Gate()];
  scripts.set("life", "second", { run: () => gate.pass() });
  const { id } = await engine.submit(two, { vmId, hostId, word: "life" });
  await gate.reached;
  const behind = await engine.submit(two, { vmId, hostId, word: "behind" });
  expect(await view(behind.id)).toMatchObject({
    state: "blocked",
    blockedBy: [id],
    steps: [],
    startedAt: null,
    cancellable: true,
  });
  expect(await view(id)).toMatchObject({
    kind: "test.two",
    state: "running",
    targets: [{ kind: "vm", id: vmId, name: "vm" }],
    blockedBy: [],
    attempt: 1,
    steps: [
      { name: "first", state: "succeeded", attempts: 1, error: null },
      { name: "second", state: "running", endedAt: null },
    ],
    progress: { done: 1, total: 2 },
    cancellable: true,
    error: null,
    endedAt: null,
    actor: "system",
    requestId: null,
  });
  gate.open();
  await engine.ended(behind.id);
  expect(await view(id)).toMatchObject({
    state: "succeeded",
    progress: { done: 2, total: 2 },
    cancellable: false,
  });
  expect(await getOperation(engine.db, newId<OperationId>())).toBeNull();
});

test("says which undo failed, and that what goes forward only cannot be cancelled", async () => {
  scripts.set("bad", "first", {
    undo: async () => Promise.reject(new HypervisorError("invalid-state", "locked")),
  });
  scripts.set("bad", "second", {
    run: async () => Promise.reject(new HypervisorError("invalid-spec", "Wrong.")),
  });
  const { id } = await engine.submit(two, { vmId: vm(), hostId, word: "bad" });
  await engine.ended(id);
  const shown = await view(id);
  expect(shown).toMatchObject({ state: "attention", error: { code: "hypervisor_error" } });
  expect(shown.error?.message).toBe('Wrong. Undoing the step "first" failed too: locked');
  expect(shown.steps[0]).toMatchObject({ state: "undoFailed", error: { message: "locked" } });
  const gate = new Gate();
  scripts.set("fw", "first", { run: () => gate.pass() });
  const going = await engine.submit(forward, { vmId: vm(), hostId, word: "fw" });
  await gate.reached;
  expect(await view(going.id)).toMatchObject({ cancellable: false });
  gate.open();
  await engine.ended(going.id);
});

test("lists by page, newest first, and by filter", async () => {
  const vmId = vm();
  const ids: string[] = [];
  for (let n = 0; n < 7; n++) ids.unshift((await engine.submit(two, { vmId, hostId, word: "list" })).id);
  const seen: string[] = [];
  let after: { readonly value: string; readonly id: string } | null = null;
  // More than there are pages: one that shows a row again must not go on for ever.
  for (let n = 0; n < 10; n++) {
    const page: OperationView[] = await listOperations(engine.db, { targetId: vmId }, { after, limit: 3 });
    seen.push(...page.map(({ id }) => id));
    const last = page.at(-1);
    if (last === undefined) break;
    after = operationPageKey(last);
  }
  expect(seen).toHaveLength(7);
  expect(new Set(seen)).toEqual(new Set(ids));
  const list = async (filter: object): Promise<number> =>
    (await listOperations(engine.db, { targetId: vmId, ...filter }, { after: null, limit: 100 })).length;
  expect(await list({ kinds: ["test.forward"] })).toBe(0);
  expect(await list({ kinds: ["test.two", "x"] })).toBe(7);
  for (const id of ids) await engine.ended(id as OperationId);
  expect(await list({ states: ["succeeded"] })).toBe(7);
  expect(await list({ states: ["failed", "blocked"] })).toBe(0);
  expect(await list({ since: new Date(Date.now() + 60_000) })).toBe(0);
});

test("history older than the limit goes, what needs attention or is not ended stays", async () => {
  await engine.db
    .$executeRaw`UPDATE operation SET ended_at = now() - interval '91 days' WHERE ended_at IS NOT NULL`;
  const gate = new Gate();
  scripts.set("open", "first", { run: () => gate.pass() });
  const open = await engine.submit(two, { vmId: vm(), hostId, word: "open" });
  const { operations } = await cleanHistory({ db: engine.db, logger: silentLog });
  expect(operations).toBeGreaterThan(5);
  const left = await listOperations(engine.db, {}, { after: null, limit: 100 });
  expect(left.map(({ state, id }) => (id === open.id ? "open" : state)).toSorted()).toEqual([
    "attention",
    "open",
  ]);
  gate.open();
  await engine.ended(open.id);
});

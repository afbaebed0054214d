import { afterAll, beforeAll, expect, test } from "vitest";
import { newId, type OperationId } from "../../../src/lib/ids.ts";
import { cancelOperation } from "../../../src/operations/operation-cancel.ts";
import { endOperation } from "../../../src/operations/operation-end.ts";
import { type OperationOutcome, type Subject, step } from "../../../src/operations/operation-kind.ts";
import { lockSubjects } from "../../../src/operations/operation-lanes.ts";
import { promoteOverlooked } from "../../../src/operations/operation-promote.ts";
import { enqueue, unfinishedOperations } from "../../../src/operations/operation-queue.ts";
import { subjectsOf } from "../../../src/operations/operation-subject-store.ts";
import { createEngine, type Engine, requestFor, type TestInput, testKind, vm } from "./harness.ts";

/** The queue alone: no worker runs here. */
const nothing = step<TestInput, never>({ name: "nothing", run: async () => undefined });
const outcomes: string[] = [];
const note = async (operation: { readonly id: string }, outcome: OperationOutcome): Promise<void> => {
  outcomes.push(
    `${operation.id}:${outcome.state}:${outcome.state === "succeeded" ? "" : outcome.error.code}`,
  );
};
const change = testKind("test.change", {
  steps: [nothing],
  onEnd: async (_tx, operation, outcome) => note(operation, outcome),
});
const forcedStop = testKind("test.forcedStop", { steps: [nothing], overtakes: true, forwardOnly: true });
const remove = testKind("test.remove", { steps: [nothing], overtakes: "all", forwardOnly: true });

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine([change, forcedStop, remove]);
});
afterAll(async () => {
  await engine.close();
});

const shared = (id: string): Subject => ({ kind: "image", id, mode: "shared" });
const exclusive = (id: string): Subject => ({ kind: "image", id, mode: "exclusive" });

async function end(id: OperationId): Promise<boolean> {
  const subjects = await subjectsOf(engine.db, id);
  return await engine.db.transaction(async (tx) => {
    await lockSubjects(tx, subjects);
    const operation = {
      id,
      kind: "test.change",
      projectId: null,
      input: { vmId: "", hostId: null, word: "" },
    };
    return await endOperation(tx, engine.kinds, operation, {
      outcome: { state: "succeeded" },
      subjects,
      claim: null,
    });
  });
}

async function states(ids: readonly OperationId[]): Promise<string[]> {
  return await Promise.all(ids.map(async (id) => (await engine.operation(id)).state));
}

test("50 concurrent enqueues on one VM stand in the order of their commits, and run one by one", async () => {
  const vmId = vm();
  const enqueued = await Promise.all(
    Array.from({ length: 50 }, () =>
      engine.db.transaction(async (tx) => {
        const { seq } = await enqueue(tx, requestFor(change, { vmId }), engine.kinds);
        // Under the lane's lock: all that committed before is seen, and nothing else can be there.
        const [newest] = await tx.$queryRaw<{ seq: bigint }[]>`
          SELECT max(seq) AS seq FROM operation_subject WHERE kind = 'vm' AND subject_id = ${vmId}::uuid`;
        return { seq, newest: newest?.seq };
      }),
    ),
  );
  for (const { seq, newest } of enqueued) expect(newest).toBe(seq);
  const queued = await unfinishedOperations(engine.db, { kind: "vm", id: vmId });
  expect(queued).toHaveLength(50);
  expect(queued.map(({ state }) => state)).toEqual(["pending", ...Array<string>(49).fill("blocked")]);
  for (const [index, { id }] of queued.entries()) {
    expect(await end(id)).toBe(true);
    const left = await unfinishedOperations(engine.db, { kind: "vm", id: vmId });
    expect(left.map(({ state }) => state)).toEqual(
      left.map((_, place) => (place === 0 ? "pending" : "blocked")),
    );
    expect(left).toHaveLength(49 - index);
  }
});

test("operations that share a subject run together, and one that wants it alone waits for all of them", async () => {
  const image = newId();
  const submit = async (subject: Subject): Promise<OperationId> =>
    (await engine.submit(change, { vmId: vm(), subjects: [subject] })).id;
  const readers = [await submit(shared(image)), await submit(shared(image))];
  const writer = await submit(exclusive(image));
  const late = await submit(shared(image));
  expect(await states([...readers, writer, late])).toEqual(["pending", "pending", "blocked", "blocked"]);
  // Both end at once: each of the two must not leave it to the other to wake the writer.
  await Promise.all(readers.map(end));
  expect(await states([writer, late])).toEqual(["pending", "blocked"]);
  await end(writer);
  expect(await states([late])).toEqual(["pending"]);
});

test("many pairs that end at once never leave a waiting one behind", async () => {
  for (let round = 0; round < 20; round++) {
    const image = newId();
    const submit = async (subject: Subject): Promise<OperationId> =>
      (await engine.submit(change, { vmId: vm(), subjects: [subject] })).id;
    const readers = await Promise.all([submit(shared(image)), submit(shared(image)), submit(shared(image))]);
    const [writer] = await Promise.all([submit(exclusive(image)), ...readers.map(end)]);
    expect(await states([writer])).toEqual(["pending"]);
  }
  expect(await promoteOverlooked(engine.db, 100)).toBe(0);
});

test("enqueueing on the same subjects in different orders never deadlocks", async () => {
  const images = Array.from({ length: 6 }, () => newId());
  await Promise.all(
    Array.from({ length: 60 }, async (_, index) => {
      const picked = [images[index % 6], images[(index * 5 + 1) % 6], images[(index + 3) % 6]];
      const subjects = picked.flatMap((id) =>
        id === undefined ? [] : [index % 3 === 0 ? exclusive(id) : shared(id)],
      );
      await engine.db.transaction(
        (tx) => enqueue(tx, requestFor(change, { vmId: vm(), subjects }), engine.kinds),
        {
          maxAttempts: 1,
        },
      );
    }),
  );
});

test("a forced stop cancels what is queued before it, but neither a delete nor what comes after it", async () => {
  const vmId = vm();
  const first = await engine.submit(change, { vmId });
  const second = await engine.submit(change, { vmId });
  outcomes.length = 0;
  const stop = await engine.submit(forcedStop, { vmId });
  expect(stop.state).toBe("pending");
  expect(await states([first.id, second.id, stop.id])).toEqual(["cancelled", "cancelled", "pending"]);
  expect(outcomes).toEqual([`${first.id}:cancelled:superseded`, `${second.id}:cancelled:superseded`]);
  const third = await engine.submit(change, { vmId });
  const removal = await engine.submit(remove, { vmId });
  expect(await states([stop.id, third.id, removal.id])).toEqual(["cancelled", "cancelled", "pending"]);
  const secondStop = await engine.submit(forcedStop, { vmId });
  const secondRemoval = await engine.submit(remove, { vmId });
  expect(await states([removal.id, secondStop.id, secondRemoval.id])).toEqual([
    "pending",
    "cancelled",
    "blocked",
  ]);
});

test("overtaking frees the other lanes of what it cancels", async () => {
  const [vmId, image] = [vm(), newId()];
  const create = await engine.submit(change, {
    vmId,
    subjects: [{ kind: "vm", id: vmId, mode: "exclusive" }, shared(image)],
  });
  const replaceImage = await engine.submit(change, { vmId: vm(), subjects: [exclusive(image)] });
  expect(replaceImage.state).toBe("blocked");
  await engine.submit(remove, { vmId });
  expect(await states([create.id, replaceImage.id])).toEqual(["cancelled", "pending"]);
});

test("cancelling a queued operation ends it and lets the next one run; a second time it is too late", async () => {
  const vmId = vm();
  const first = await engine.submit(change, { vmId });
  const second = await engine.submit(change, { vmId });
  const cancel = (): Promise<string> =>
    engine.db.transaction((tx) => cancelOperation(tx, engine.kinds, first.id));
  expect(await cancel()).toBe("cancelled");
  expect(await states([first.id, second.id])).toEqual(["cancelled", "pending"]);
  expect(await cancel()).toBe("ended");
  await expect(
    engine.db.transaction((tx) => cancelOperation(tx, engine.kinds, newId<OperationId>())),
  ).rejects.toMatchObject({ code: "not_found" });
});

test("a transaction that is rolled back leaves nothing in the queue", async () => {
  const vmId = vm();
  const broken = engine.db.transaction(async (tx) => {
    await enqueue(tx, requestFor(change, { vmId }), engine.kinds);
    throw new Error("the caller fails");
  });
  await expect(broken).rejects.toThrow("the caller fails");
  expect(await unfinishedOperations(engine.db, { kind: "vm", id: vmId })).toEqual([]);
  expect((await engine.submit(change, { vmId })).state).toBe("pending");
});

test("the database itself refuses a second exclusive operation that acts on a subject", async () => {
  const vmId = vm();
  await engine.submit(change, { vmId });
  const second = await engine.submit(change, { vmId });
  await expect(
    engine.db.$executeRaw`UPDATE operation_subject SET active = true WHERE operation_id = ${second.id}::uuid`,
  ).rejects.toThrow(/operation_subject_exclusive_key/);
});

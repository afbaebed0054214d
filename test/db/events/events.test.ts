import { afterEach, beforeEach, expect, test } from "vitest";
import { type Listener, openListener } from "../../../src/db/listener.ts";
import { WRITTEN } from "../../../src/events/event-channels.ts";
import { createEventFeed, type EventFeed } from "../../../src/events/event-feed.ts";
import { EventSchema, eventView } from "../../../src/events/event-schemas.ts";
import { type EventSequencer, startEventSequencer } from "../../../src/events/event-sequencer.ts";
import {
  appendEvent,
  deleteOldEvents,
  type EventRecord,
  latestEventSeq,
  listEvents,
} from "../../../src/events/event-store.ts";
import { newId, type OperationId } from "../../../src/lib/ids.ts";
import { createTestDatabase, execute, type TestDatabase } from "../../fixtures/database.ts";
import { silentLog } from "../../fixtures/log.ts";

let database: TestDatabase;
let listener: Listener;
let feed: EventFeed;
const sequencers: EventSequencer[] = [];
beforeEach(async () => {
  database = await createTestDatabase();
  listener = await openListener({ url: database.url, logger: silentLog });
  feed = createEventFeed({ db: database.db, wakes: listener, logger: silentLog });
});
afterEach(async () => {
  feed.close();
  for (const sequencer of sequencers.splice(0)) await sequencer.stop();
  await listener.close();
  await database.drop();
});

function startSequencer(name = "sequencer"): EventSequencer {
  const url = new URL(database.url);
  url.searchParams.set("application_name", name);
  const sequencer = startEventSequencer({
    url: url.toString(),
    wakes: listener,
    logger: silentLog,
    pollSeconds: 0.05,
  });
  sequencers.push(sequencer);
  return sequencer;
}

async function write(subjectId: string, ...numbers: number[]): Promise<void> {
  await database.db.transaction(async (tx) => {
    for (const n of numbers)
      await appendEvent(tx, {
        type: "vm.created",
        subject: { kind: "vm", id: subjectId, name: "web-1" },
        projectId: null,
        data: { n },
      });
  });
  listener.notify(WRITTEN);
}

/** Reads the feed until so many events have come. */
async function read(count: number, after = 0n, filter = {}): Promise<EventRecord[]> {
  const aborter = new AbortController();
  const events: EventRecord[] = [];
  const limit = setTimeout(() => {
    aborter.abort();
  }, 30_000);
  for await (const portion of feed.follow({ after, filter, signal: aborter.signal })) {
    events.push(...portion);
    if (events.length >= count) break;
  }
  clearTimeout(limit);
  return events;
}

test("concurrent writers and two sequencers, one of them killed: no gap, no number twice, each subject in order", async () => {
  startSequencer("first");
  startSequencer("second");
  const subjects = Array.from({ length: 6 }, () => newId());
  const writing = subjects.map(async (subject, s) => {
    for (let n = 0; n < 40; n++) {
      await write(subject, n);
      if (s === 0 && n % 15 === 7)
        await execute(
          database.url,
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('first', 'second')`,
        );
    }
  });
  const [events] = await Promise.all([read(240), ...writing]);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => BigInt(index + 1)));
  expect(events).toHaveLength(240);
  for (const subject of subjects) {
    const own = events.filter((event) => event.subject.id === subject);
    expect(own.map(({ data }) => data["n"])).toEqual(own.map((_, index) => index));
  }
});

test("an event of a transaction that commits late gets a number behind those that readers have seen", async () => {
  startSequencer();
  const [late, early] = [newId(), newId()];
  const gate = Promise.withResolvers<undefined>();
  const slow = database.db.transaction(async (tx) => {
    await appendEvent(tx, {
      type: "vm.created",
      subject: { kind: "vm", id: late, name: null },
      projectId: null,
    });
    await gate.promise;
  });
  await write(early, 1);
  const seen = await read(1);
  expect(seen.map(({ subject }) => subject.id)).toEqual([early]);
  gate.resolve(undefined);
  await slow;
  expect((await read(1, seen[0]?.seq)).map(({ seq, subject }) => [seq, subject.id])).toEqual([[2n, late]]);
});

test("only one of two sequencers works, and the other takes over when it stops", async () => {
  const first = startSequencer("first");
  await write(newId(), 1);
  await read(1);
  const second = startSequencer("second");
  await write(newId(), 2);
  await read(2);
  // The second one has asked for the lock, and has had its answer: it asks again and again.
  const asked = new Set<string>();
  while (asked.size < 3) {
    const rows = await execute<{ at: string }>(
      database.url,
      `SELECT query_start::text AS at FROM pg_stat_activity
       WHERE application_name = 'second' AND datname = current_database() AND query ~ 'pg_try_advisory_lock|waiting'`,
    );
    for (const { at } of rows) asked.add(at);
  }
  expect([first.isActive(), second.isActive()]).toEqual([true, false]);
  await first.stop();
  await write(newId(), 3);
  expect(await read(3)).toHaveLength(3);
  expect(second.isActive()).toBe(true);
});

test("filters match by type, subject and operation, and a follower that matches little goes on", async () => {
  startSequencer();
  const [vm, host] = [newId(), newId()];
  const operationId = newId<OperationId>();
  await database.db.transaction(async (tx) => {
    const project = null;
    await appendEvent(tx, {
      type: "vm.power.changed",
      subject: { kind: "vm", id: vm, name: "a" },
      projectId: project,
      operationId,
    });
    await appendEvent(tx, {
      type: "vmware.created",
      subject: { kind: "host", id: host, name: "b" },
      projectId: project,
    });
    await appendEvent(tx, {
      type: "vm.created",
      subject: { kind: "vm", id: vm, name: "a" },
      projectId: project,
    });
  });
  await read(3);
  const list = async (filter: object): Promise<string[]> =>
    (await listEvents(database.db, { after: 0n, limit: 10, filter })).map(({ type }) => type);
  expect(await list({ types: ["vm"] })).toEqual(["vm.power.changed", "vm.created"]);
  expect(await list({ types: ["vm.created", "vmware"] })).toEqual(["vmware.created", "vm.created"]);
  expect(await list({ subjectId: host })).toEqual(["vmware.created"]);
  expect(await list({ subjectKind: "vm", operationId })).toEqual(["vm.power.changed"]);
  const following = read(1, 0n, { subjectId: vm, types: ["vm.deleted"] });
  for (let n = 0; n < 30; n++) await write(host, n);
  await database.db.transaction((tx) =>
    appendEvent(tx, { type: "vm.deleted", subject: { kind: "vm", id: vm, name: "a" }, projectId: null }),
  );
  listener.notify(WRITTEN);
  expect((await following).map(({ seq, type }) => [seq, type])).toEqual([[34n, "vm.deleted"]]);
});

test("an event as the API shows it matches its schema", async () => {
  startSequencer();
  await write(newId(), 1);
  const [event] = await read(1);
  if (event === undefined) throw new Error("no event");
  expect(EventSchema.parse(eventView(event))).toMatchObject({
    seq: "1",
    type: "vm.created",
    data: { n: 1 },
    operationId: null,
  });
});

test("old events go, the newest stays, and numbers go on from it", async () => {
  startSequencer();
  const subject = newId();
  await write(subject, 1, 2, 3, 4, 5);
  await read(5);
  await database.db.$executeRaw`UPDATE event SET at = now() - interval '100 days' WHERE seq <= 5`;
  expect(await deleteOldEvents(database.db, 90, 3)).toBe(3);
  expect(await deleteOldEvents(database.db, 90, 3)).toBe(1);
  expect(await deleteOldEvents(database.db, 90, 3)).toBe(0);
  expect(await latestEventSeq(database.db)).toBe(5n);
  await write(subject, 6);
  expect((await read(2)).map(({ seq }) => seq)).toEqual([5n, 6n]);
});

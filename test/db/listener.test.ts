import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Listener, openListener } from "../../src/db/listener.ts";
import type { Log } from "../../src/lib/log.ts";
import { createEmptyDatabase, execute } from "../fixtures/database.ts";
import { silentLog } from "../fixtures/log.ts";

const SOON = { timeout: 20_000 };
const KEY = 42n;

let database: Awaited<ReturnType<typeof createEmptyDatabase>>;
const open: Listener[] = [];
beforeAll(async () => {
  database = await createEmptyDatabase();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.close()));
});
afterAll(async () => {
  await database.drop();
});

async function listener(onLost?: () => void, logger: Log = silentLog): Promise<Listener> {
  const options = { url: database.url, logger };
  const opened = await openListener(onLost === undefined ? options : { ...options, onLost });
  open.push(opened);
  return opened;
}

const SESSIONS =
  "FROM pg_stat_activity WHERE application_name = 'drover-session' AND datname = current_database()";
const WAITING_FOR_LOCK = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

/** Ends the sessions of all listeners from the server's side, as a restart of the server would. */
async function endSessions(): Promise<void> {
  await execute(database.url, `SELECT pg_terminate_backend(pid) ${SESSIONS}`);
}

/** Ends the session of the listener that was opened last. */
async function endLastSession(): Promise<void> {
  const last = `SELECT pid ${SESSIONS} ORDER BY backend_start DESC LIMIT 1`;
  await execute(database.url, `SELECT pg_terminate_backend(pid) FROM (${last}) AS last`);
}

describe("a listener", () => {
  it("wakes those who listen to the channel, in this and in other processes, and nobody else", async () => {
    const [sender, receiver] = [await listener(), await listener()];
    const woken: string[] = [];
    sender.listen("work", () => woken.push("sender"));
    receiver.listen("work", () => woken.push("receiver"));
    receiver.listen('a "quoted" one', () => woken.push("other"));
    await expect
      .poll(() => {
        sender.notify("work");
        return new Set(woken);
      }, SOON)
      .toEqual(new Set(["sender", "receiver"]));
  });

  it("makes one notification of many that come at once", async () => {
    const [sender, receiver] = [await listener(), await listener()];
    let wakes = 0;
    let done = false;
    receiver.listen("burst", () => wakes++);
    receiver.listen("done", () => (done = true));
    await execute(database.url, "SELECT 1"); // LISTEN was sent before; give it a round trip
    for (let i = 0; i < 1000; i++) sender.notify("burst");
    await expect
      .poll(() => {
        sender.notify("done");
        return done;
      }, SOON)
      .toBe(true);
    expect(wakes).toBeGreaterThan(0);
    expect(wakes).toBeLessThanOrEqual(3);
  });

  it("stops waking who has stopped listening", async () => {
    const both = await listener();
    const woken: string[] = [];
    const stop = both.listen("work", () => woken.push("stopped"));
    both.listen("work", () => woken.push("stays"));
    stop();
    await expect
      .poll(() => {
        both.notify("work");
        return woken;
      }, SOON)
      .toContain("stays");
    expect(woken).not.toContain("stopped");
  });

  it("notices the end of its session, reconnects, wakes everybody once and goes on", async () => {
    let losses = 0;
    const both = await listener(() => losses++);
    let wakes = 0;
    both.listen("work", () => wakes++);
    await endSessions();
    await expect.poll(() => losses, SOON).toBe(1);
    await expect.poll(() => both.isHealthy(), SOON).toBe(true);
    expect(wakes).toBe(1);
    both.notify("work");
    await expect.poll(() => wakes, SOON).toBe(2);
  });

  it("sends after the reconnect what was to be notified meanwhile", async () => {
    const receiver = await listener();
    let wakes = 0;
    receiver.listen("late", () => wakes++);
    const sender: Listener = await listener(() => {
      sender.notify("late");
    });
    await endLastSession();
    await expect.poll(() => wakes, SOON).toBeGreaterThan(0);
  });
});

describe("its lock", () => {
  it("is held by one listener only, until that one closes", async () => {
    const [holder, other] = [await listener(), await listener()];
    expect(await holder.holdLock(KEY)).toBe(true);
    expect(await other.holdLock(KEY)).toBe(false);
    expect([holder.isHealthy(), other.isHealthy()]).toEqual([true, true]);
    await holder.close();
    await expect.poll(() => other.holdLock(KEY), SOON).toBe(true);
  });

  it("is taken again after a reconnect", async () => {
    let losses = 0;
    const holder = await listener(() => losses++);
    expect(await holder.holdLock(KEY)).toBe(true);
    await endSessions();
    await expect.poll(() => losses, SOON).toBe(1);
    await expect.poll(() => holder.isHealthy(), SOON).toBe(true);
    expect(await (await listener()).holdLock(KEY)).toBe(false);
  });

  it("keeps the listener unhealthy while another session has it", async () => {
    let failures = 0;
    const holder = await listener(undefined, { ...silentLog, debug: () => failures++ });
    expect(await holder.holdLock(KEY)).toBe(true);
    const thief = new pg.Client({ connectionString: database.url });
    await thief.connect();
    const stolen = thief.query("SELECT pg_advisory_lock($1)", [KEY.toString()]);
    await expect.poll(() => execute(database.url, WAITING_FOR_LOCK), SOON).toHaveLength(1);
    await endSessions();
    await stolen;
    await expect.poll(() => failures, SOON).toBeGreaterThan(1);
    expect(holder.isHealthy()).toBe(false);
    await thief.end();
    await expect.poll(() => holder.isHealthy(), SOON).toBe(true);
  });
});

it("cannot be opened where nobody answers", async () => {
  const opened = openListener({ url: "postgresql://x@localhost/x?host=/nonexistent", logger: silentLog });
  await expect(opened).rejects.toThrow(/ENOENT/);
});

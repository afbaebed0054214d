import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Listener, openListener } from "../../src/db/listener.ts";
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

async function listener(onLost?: () => void): Promise<Listener> {
  const options = { url: database.url, logger: silentLog };
  const opened = await openListener(onLost === undefined ? options : { ...options, onLost });
  open.push(opened);
  return opened;
}

/** Ends the sessions of all listeners from the server's side, as a restart of the server would. */
async function endSessions(): Promise<void> {
  await execute(
    database.url,
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'drover-session' AND datname = current_database()",
  );
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
    const [sender, receiver] = [await listener(), await listener()];
    let wakes = 0;
    receiver.listen("work", () => wakes++);
    await endSessions();
    await expect.poll(() => sender.isHealthy() || receiver.isHealthy(), SOON).toBe(false);
    sender.notify("late");
    let late = 0;
    receiver.listen("late", () => late++);
    await expect.poll(() => receiver.isHealthy() && sender.isHealthy(), SOON).toBe(true);
    await expect.poll(() => late, SOON).toBeGreaterThan(0);
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
    const holder = await listener();
    expect(await holder.holdLock(KEY)).toBe(true);
    await endSessions();
    await expect.poll(() => holder.isHealthy(), SOON).toBe(false);
    await expect.poll(() => holder.isHealthy(), SOON).toBe(true);
    expect(await (await listener()).holdLock(KEY)).toBe(false);
  });

  it("lets the listener stay unhealthy while another session has it", async () => {
    const holder = await listener();
    expect(await holder.holdLock(KEY)).toBe(true);
    const thief = execute(database.url, `SELECT pg_advisory_lock(${KEY.toString()}), pg_sleep(1)`);
    await expect
      .poll(
        () => execute(database.url, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
        SOON,
      )
      .toHaveLength(1);
    await endSessions();
    await expect.poll(() => holder.isHealthy(), SOON).toBe(false);
    await thief;
    await expect.poll(() => holder.isHealthy(), SOON).toBe(true);
  });
});

it("cannot be opened where nobody answers", async () => {
  const opened = openListener({ url: "postgresql://x@localhost/x?host=/nonexistent", logger: silentLog });
  await expect(opened).rejects.toThrow(/ENOENT/);
});

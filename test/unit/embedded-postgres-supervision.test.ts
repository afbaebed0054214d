import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { superviseServer } from "../../src/db/embedded-postgres-supervision.ts";
import { silentLog } from "../fixtures/log.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function server(start: () => void) {
  let running = true;
  let starts = 0;
  return {
    starts: () => starts,
    die: () => {
      running = false;
    },
    isRunning: () => running,
    startAgain: async () => {
      starts++;
      start();
      running = true;
    },
  };
}

it("starts a server that died at once, and lets one that runs be", async () => {
  const fine = server(() => undefined);
  const supervision = superviseServer(fine, silentLog);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(fine.starts()).toBe(0);
  fine.die();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fine.starts()).toBe(1);
  await vi.advanceTimersByTimeAsync(600_000);
  fine.die();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fine.starts()).toBe(2);
  await supervision.stop();
});

it("tries one that does not come up ever more seldom, but for ever", async () => {
  const broken = server(() => {
    throw new Error("the disk is full");
  });
  const logged = vi.fn();
  const supervision = superviseServer(broken, { ...silentLog, error: logged });
  broken.die();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(broken.starts()).toBeGreaterThan(3);
  expect(broken.starts()).toBeLessThan(9);
  const before = broken.starts();
  await vi.advanceTimersByTimeAsync(300_000);
  expect(broken.starts() - before).toBeGreaterThan(7);
  expect(broken.starts() - before).toBeLessThan(12);
  expect(logged).toHaveBeenCalledTimes(broken.starts());
  await supervision.stop();
  const ended = broken.starts();
  await vi.advanceTimersByTimeAsync(300_000);
  expect(broken.starts()).toBe(ended);
});

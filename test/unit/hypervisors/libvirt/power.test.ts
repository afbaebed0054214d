import { describe, expect, it } from "vitest";
import { isActive, isPaused, isRunning, powerOf } from "../../../../src/hypervisors/libvirt/power.ts";

describe("power by libvirt's state and reason", () => {
  it.each([
    [1, 1, "running", "booted"],
    [1, 5, "running", "unpaused"],
    [1, 99, "running", null],
    [2, 0, "running", null],
    [3, 1, "paused", "user"],
    [3, 5, "paused", "ioerror"],
    [3, 10, "crashed", "crashed"],
    [4, 1, "running", "shutting-down"],
    [5, 0, "off", null],
    [5, 1, "off", "shutdown"],
    [5, 2, "off", "destroyed"],
    [5, 3, "crashed", "crashed"],
    [5, 6, "off", "failed"],
    [6, 1, "crashed", "panicked"],
    [6, 0, "crashed", null],
    [7, 0, "paused", "pmsuspended"],
    [0, 0, "off", null],
  ])("%i/%i is %s for %s", (state, reason, power, why) => {
    expect(powerOf({ state, reason }, false)).toEqual({ power, reason: why });
  });

  it("of a domain that is off with its memory kept is saved, whatever came before", () => {
    expect(powerOf({ state: 5, reason: 5 }, true)).toEqual({ power: "saved", reason: "saved" });
    expect(powerOf({ state: 5, reason: 3 }, true)).toEqual({ power: "saved", reason: "saved" });
    expect(powerOf({ state: 1, reason: 1 }, true)).toEqual({ power: "running", reason: "booted" });
    expect(powerOf({ state: 5, reason: 5 }, false)).toEqual({ power: "off", reason: "saved" });
  });

  it("tells what has an instance on its host", () => {
    const active = [0, 1, 2, 3, 4, 5, 6, 7].filter((state) => isActive({ state, reason: 0 }));
    expect(active).toEqual([1, 2, 3, 4, 6, 7]);
    expect(isRunning({ state: 2, reason: 0 })).toBe(true);
    expect(isPaused({ state: 3, reason: 1 })).toBe(true);
    expect(isRunning({ state: 3, reason: 1 })).toBe(false);
  });
});

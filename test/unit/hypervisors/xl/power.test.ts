import { describe, expect, it } from "vitest";
import type { ListedDomain, ShutdownReason } from "../../../../src/hypervisors/xl/parse-list.ts";
import { powerOf } from "../../../../src/hypervisors/xl/power.ts";

function listed(change: Partial<ListedDomain> = {}): ListedDomain {
  return {
    name: "a",
    domid: 7,
    memoryMib: 96,
    cpuCount: 1,
    isPaused: false,
    isDying: false,
    shutdown: null,
    cpuSeconds: 5.2,
    uuid: "5b11ba6a-4b6a-4cbe-8b23-8a5e373feef7",
    ...change,
  };
}

describe("a domain that is listed", () => {
  it.each([true, false, null])("and neither paused nor stopped runs (served: %s)", (isServed) => {
    expect(powerOf({ listed: listed(), isSaved: false, isServed })).toEqual({
      power: "running",
      reason: null,
      isPassing: false,
    });
  });

  it("runs though its saved memory is still there: it was just restored", () => {
    expect(powerOf({ listed: listed(), isSaved: true, isServed: true }).power).toBe("running");
  });

  it.each([
    [5.2, true, false],
    [0, true, true],
    [0, false, false],
    [0, null, false],
  ])(
    "and paused after %d s of work (served: %s) is paused, in passing: %s",
    (cpuSeconds, isServed, isPassing) => {
      const domain = listed({ isPaused: true, cpuSeconds });
      expect(powerOf({ listed: domain, isSaved: false, isServed })).toEqual({
        power: "paused",
        reason: null,
        isPassing,
      });
    },
  );

  it.each([
    ["poweroff", true, "running", "shutting-down", true],
    ["poweroff", false, "off", "stranded", true],
    ["poweroff", null, "off", "stranded", false],
    ["reboot", true, "running", "rebooting", true],
    ["reboot", false, "crashed", "reboot-lost", true],
    ["soft-reset", true, "running", "rebooting", true],
    ["soft-reset", false, "crashed", "reboot-lost", true],
    ["suspend", true, "paused", "saving", true],
    ["suspend", false, "crashed", "save-lost", true],
    ["crash", true, "crashed", "crashed", false],
    ["crash", false, "crashed", "crashed", false],
    ["watchdog", true, "crashed", "watchdog", false],
    ["unknown", false, "crashed", "unknown", false],
  ] as const)(
    "and stopped itself by %s (served: %s) is %s (%s), in passing: %s",
    (shutdown, isServed, power, reason, isPassing) => {
      for (const isPaused of [true, false]) {
        const domain = listed({ shutdown: shutdown satisfies ShutdownReason, isPaused });
        expect(powerOf({ listed: domain, isSaved: false, isServed })).toEqual({ power, reason, isPassing });
      }
    },
  );
});

describe("a domain that is not listed", () => {
  it.each([
    [false, false, "off", null, false],
    [false, null, "off", null, false],
    [false, true, "running", "rebooting", true],
    [true, false, "saved", "saved", false],
    [true, true, "saved", "saved", true],
  ] as const)(
    "with saved memory: %s, served: %s, is %s (%s), in passing: %s",
    (isSaved, isServed, power, reason, isPassing) => {
      expect(powerOf({ listed: null, isSaved, isServed })).toEqual({ power, reason, isPassing });
    },
  );
});

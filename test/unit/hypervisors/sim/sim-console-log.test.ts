import { describe, expect, it } from "vitest";
import { type ConsoleEntry, renderConsoleLog } from "../../../../src/hypervisors/sim/sim-console-log.ts";

const boot: ConsoleEntry = {
  kind: "boot",
  boot: "11111111-1111-4111-8111-111111111111",
  at: "2026-01-01T00:00:00Z",
  cpuCount: 2,
  memoryMib: 512,
  commandLine: "console=ttyS0 quiet",
};

describe("the serial console's log", () => {
  it("is empty for a guest that never ran", () => {
    expect(renderConsoleLog([])).toBe("");
  });

  it("tells of a boot what the guest was given, and when it is up", () => {
    const log = renderConsoleLog([boot]);
    expect(log).toContain("Command line: console=ttyS0 quiet\r\n");
    expect(log).toContain("Memory: 524288K available\r\n");
    expect(log).toContain("2 CPUs\r\n");
    expect(log).toContain("\r\nDROVER-GUEST-UP boot=11111111-1111-4111-8111-111111111111\r\n");
  });

  it("tells the end of a guest after its beginning", () => {
    const log = renderConsoleLog([boot, { ...boot, kind: "power-down" }, boot, { ...boot, kind: "panic" }]);
    expect(log).toMatch(/GUEST-UP[^]*Power down[^]*GUEST-UP[^]*Kernel panic[^]*\r\n$/);
  });
});

import { expect, it } from "vitest";
import { SimShell } from "../../../../src/hypervisors/sim/sim-shell.ts";

/** Types keys into a fresh shell and reads what its terminal shows, without the beginning. */
function shown(...keys: readonly string[]): string {
  const shell = new SimShell(() => "booted\r\n");
  shell.setEncoding("utf8");
  shell.read();
  for (const key of keys) shell.write(key);
  const text: unknown = shell.read();
  return typeof text === "string" ? text : "";
}

it("shows the boot log and a prompt first", () => {
  const shell = new SimShell(() => "booted\r\n");
  expect(String(shell.read())).toBe("booted\r\n\r\nsim# ");
});

it.each([
  ["echo hello\r", "echo hello\r\nhello\r\nsim# "],
  ['echo DROVER-"ECHO" a\r\n', 'echo DROVER-"ECHO" a\r\nDROVER-ECHO a\r\nsim# '],
  ["\r", "\r\nsim# "],
  ["dmesg\n", "dmesg\r\nbooted\r\nsim# "],
  ["ecx\x7fho b\r", "ecx\b \bho b\r\nb\r\nsim# "],
  ["\x7f\x7f", ""],
  ["echo lost\x03echo c\r", "echo lost\r\nsim# echo c\r\nc\r\nsim# "],
  ["\x1b[A", "[A"],
])("answers %j as a terminal shows it", (keys, text) => {
  expect(shown(keys)).toBe(text);
  expect(shown(...Array.from(keys))).toBe(text);
});

it("names what it does not know", () => {
  expect(shown("reboot now\r")).toContain("sh: reboot: not found");
});

it("holds up who types while nobody reads, and keeps lines short", () => {
  const shell = new SimShell(() => "");
  let accepted = 0;
  while (accepted < 10_000_000 && shell.write(`echo ${"x".repeat(990)}\r`)) accepted += 1000;
  expect(shell.writableNeedDrain).toBe(true);
  expect(shell.readableLength).toBeLessThan(1_000_000);
});

it("ends when it is ended", async () => {
  const shell = new SimShell(() => "");
  const closed = new Promise((resolve) => shell.once("close", resolve));
  shell.resume();
  shell.end();
  await closed;
});

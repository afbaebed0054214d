import { readdir, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";
import { createBuildLogs } from "../../../../src/images/build/build-logs.ts";
import { MIB } from "../../../../src/lib/units.ts";
import { temporaryDirectory } from "../../../fixtures/temporary-directory.ts";

const textOf = (bytes: Uint8Array | null) => (bytes === null ? null : Buffer.from(bytes).toString());

it("goes on with a log, gives its end, and removes it", async () => {
  const logs = createBuildLogs(path.join(await temporaryDirectory(), "logs"));
  expect(await logs.read("a", 100)).toBeNull();
  expect(await logs.imageIds()).toEqual([]);
  for (const line of ["one", "two"]) {
    const log = logs.open("a");
    log.write(line);
    await log.close();
  }
  expect(textOf(await logs.read("a", 100))).toBe("one\ntwo\n");
  expect(textOf(await logs.read("a", 4))).toBe("two\n");
  expect(await logs.imageIds()).toEqual(["a"]);
  await logs.remove("a");
  expect(await logs.read("a", 100)).toBeNull();
});

it("keeps the end of a log that grows without measure, in bounded room", async () => {
  const directory = await temporaryDirectory();
  const logs = createBuildLogs(directory);
  const log = logs.open("a");
  for (let part = 0; part < 40; part++) {
    for (let line = 0; line < 100; line++) log.write(`${part * 100 + line} ${"x".repeat(5_000)}`);
    await log.close();
  }
  const text = textOf(await logs.read("a", 2 * MIB)) ?? "";
  const numbers = text
    .trimEnd()
    .split("\n")
    .map((line) => Number(line.split(" ")[0]));
  expect(numbers.at(-1)).toBe(3_999);
  expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index));
  const sizes = (await readdir(directory)).map(async (name) => (await stat(path.join(directory, name))).size);
  expect((await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)).toBeLessThan(1.6 * MIB);
});

it("tells at the end that it could not be written", async () => {
  const blocked = path.join(await temporaryDirectory(), "file");
  await writeFile(blocked, "");
  const log = createBuildLogs(blocked).open("a");
  log.write("lost");
  await expect(log.close()).rejects.toThrow(/EEXIST|ENOTDIR/);
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fileLock, tryFileLock } from "../../src/db/file-lock.ts";
import { DatabaseSetupError } from "../../src/db/setup-error.ts";

const MODULE = new URL("../../src/db/file-lock.ts", import.meta.url).href;

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "drover-lock-"));
  path = join(directory, "lock");
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe("a file lock", () => {
  it("is shared by many, or one's alone", () => {
    const shared = [tryFileLock(path, "shared"), tryFileLock(path, "shared")];
    expect(tryFileLock(path, "exclusive")).toBeNull();
    shared[0]?.release();
    expect(tryFileLock(path, "exclusive")).toBeNull();
    shared[1]?.release();
    shared[1]?.release();
    const exclusive = tryFileLock(path, "exclusive");
    expect(exclusive).not.toBeNull();
    expect(tryFileLock(path, "shared")).toBeNull();
    exclusive?.release();
  });

  it.each(["shared", "exclusive"] as const)(
    "held %s by another process is free once that was killed",
    async (mode) => {
      const script = `import { tryFileLock } from ${JSON.stringify(MODULE)}; tryFileLock(${JSON.stringify(path)}, "${mode}"); console.log("held"); setInterval(() => {}, 1000);`;
      const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(holder.stdout, "data");
      expect(tryFileLock(path, "exclusive")).toBeNull();
      const ended = once(holder, "exit");
      holder.kill("SIGKILL");
      await ended;
      expect(tryFileLock(path, "exclusive")).not.toBeNull();
    },
  );

  it("is waited for, but not for ever", async () => {
    const holder = tryFileLock(path, "exclusive");
    await expect(fileLock(path, "shared", 0.1)).rejects.toThrow(DatabaseSetupError);
    const waiting = fileLock(path, "shared", 60);
    holder?.release();
    (await waiting).release();
  });

  it("says what is wrong where the file cannot be made", () => {
    expect(() => tryFileLock(join(directory, "missing/lock"), "shared")).toThrow(/Cannot lock/);
  });
});

import { randomBytes } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createSecretBox } from "../../src/lib/secret-box.ts";
import { StartupError } from "../../src/lib/startup-error.ts";
import { loadSecretKey } from "../../src/secret-key.ts";
import { temporaryDirectory } from "../fixtures/temporary-directory.ts";

describe("a secret box", () => {
  const box = createSecretBox(randomBytes(32));

  test("opens what it sealed", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const whole = text.toWellFormed();
        expect(box.open(box.seal(whole))).toBe(whole);
      }),
    );
  });

  test("seals the same text differently each time, and shows nothing of it", () => {
    const sealed = box.seal("a private key");
    expect(Buffer.from(sealed)).not.toEqual(Buffer.from(box.seal("a private key")));
    expect(Buffer.from(sealed).toString("latin1")).not.toContain("private");
  });

  test("opens nothing that was changed in any byte, cut, or sealed under another key", () => {
    const sealed = box.seal("text");
    for (let at = 0; at < sealed.length; at++) {
      const changed = Uint8Array.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => box.open(changed)).toThrow();
      expect(() => box.open(sealed.slice(0, at))).toThrow();
    }
    expect(() => createSecretBox(randomBytes(32)).open(sealed)).toThrow();
  });

  test("takes no tag that was cut short, though it is the right one as far as it goes", () => {
    const sealed = box.seal("");
    expect(box.open(sealed)).toBe("");
    expect(() => box.open(sealed.slice(0, -4))).toThrow();
  });

  test("takes no key of another size", () => {
    expect(() => createSecretBox(randomBytes(16))).toThrow(RangeError);
  });
});

describe("the secret key", () => {
  test("is the configured one, without a file", async () => {
    const dataDir = await temporaryDirectory();
    const key = randomBytes(32);
    expect(Buffer.from(await loadSecretKey(dataDir, key.toString("base64")))).toEqual(key);
    expect(await readdir(dataDir)).toEqual([]);
  });

  test("is made once, for its owner only, and the same for all who start at once", async () => {
    const dataDir = join(await temporaryDirectory(), "new");
    const keys = await Promise.all(Array.from({ length: 8 }, () => loadSecretKey(dataDir, null)));
    const texts = new Set(keys.map((key) => Buffer.from(key).toString("base64")));
    expect(texts.size).toBe(1);
    expect(await readdir(dataDir)).toEqual(["secret.key"]);
    expect((await stat(join(dataDir, "secret.key"))).mode & 0o777).toBe(0o600);
    expect((await readFile(join(dataDir, "secret.key"), "utf8")).trim()).toBe([...texts][0]);
  });

  test("is refused with one line that names the file when the file holds another thing", async () => {
    const dataDir = await temporaryDirectory();
    await writeFile(join(dataDir, "secret.key"), "oops\n");
    const load = loadSecretKey(dataDir, null);
    await expect(load).rejects.toThrow(StartupError);
    await expect(load).rejects.toThrow(/secret\.key holds no key[^\n]*$/);
  });
});

import { randomBytes } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { beforeEach, describe, expect, it } from "vitest";
import { rawContent } from "../../../src/images/raw-content.ts";
import { temporaryDirectory } from "../../fixtures/temporary-directory.ts";

const MIB = 2 ** 20;

let directory: string;
let disk: Buffer;

beforeEach(async () => {
  directory = await temporaryDirectory();
  disk = Buffer.concat([randomBytes(MIB), Buffer.alloc(3 * MIB), randomBytes(MIB)]);
  const raw = join(directory, "raw");
  await writeFile(raw, disk);
  await execa("qemu-img", ["convert", "-c", "-O", "qcow2", raw, join(directory, "image")]);
});

function content(change: Partial<Parameters<typeof rawContent>[0]> = {}) {
  const { signal } = new AbortController();
  return rawContent({
    source: join(directory, "image"),
    scratch: join(directory, "scratch"),
    signal,
    ...change,
  });
}

async function read(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

describe("a qcow2 that is unpacked", () => {
  it("is the disk that a guest sees, and its file has no name while it is read", async () => {
    const unpacked = content();
    const first = await unpacked.next();
    expect(await readdir(directory)).toEqual(["image", "raw"]);
    const rest = await read(unpacked);
    expect(Buffer.concat([first.value as Uint8Array, rest]).equals(disk)).toBe(true);
  });

  it("leaves nothing where its reader goes away, or never comes", async () => {
    for await (const part of content()) {
      expect(part.length).toBeGreaterThan(0);
      break;
    }
    content();
    expect(await readdir(directory)).toEqual(["image", "raw"]);
  });

  it("is refused with what to install where qemu-img is not", async () => {
    const reading = read(content({ program: join(directory, "none") }));
    await expect(reading).rejects.toMatchObject({ code: "capability_unsupported" });
    await expect(reading).rejects.toThrow("qemu-utils");
  });

  it("is an error without the path where it cannot be read", async () => {
    await writeFile(join(directory, "image"), (await readFile(join(directory, "image"))).subarray(0, 70));
    const reading = read(content());
    await expect(reading).rejects.toMatchObject({ code: "internal" });
    await expect(reading).rejects.toThrow(/^(?!.*\/image)/s);
    expect(await readdir(directory)).toEqual(["image", "raw"]);
  });

  it("ends with its signal, and leaves nothing", async () => {
    const stop = new AbortController();
    stop.abort(new Error("given up"));
    await expect(read(content({ signal: stop.signal }))).rejects.toThrow("given up");
    expect(await readdir(directory)).toEqual(["image", "raw"]);
  });
});

import { createHash } from "node:crypto";
import { readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { claimImageDirectory } from "../../../src/images/image-directory.ts";
import { createImageFiles, type ImageFiles } from "../../../src/images/image-files.ts";
import type { ReceivedFile } from "../../../src/images/incoming-file.ts";
import { newId } from "../../../src/lib/ids.ts";
import { temporaryDirectory } from "../../fixtures/temporary-directory.ts";

interface Store {
  readonly directory: string;
  readonly files: ImageFiles;
}

async function newStore(reserveBytes = 0): Promise<Store> {
  const directory = await temporaryDirectory();
  await claimImageDirectory(directory, { installationId: newId(), isNewInstallation: true });
  return { directory, files: createImageFiles({ directory, reserveBytes }) };
}

async function* parts(...chunks: readonly (string | Uint8Array | Error)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    if (chunk instanceof Error) throw chunk;
    yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
  }
}

function receive(
  files: ImageFiles,
  source: AsyncIterable<Uint8Array>,
  maxBytes = 1e9,
): Promise<ReceivedFile> {
  return files.receive("test", { source, maxBytes, announcedBytes: null, onHead: () => undefined });
}

function incoming({ directory }: Store): Promise<string[]> {
  return readdir(path.join(directory, "incoming"));
}

async function textOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of content) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

describe("receive", () => {
  it("writes a stream to a new file and tells its digest and size", async () => {
    const store = await newStore();
    const received = await receive(store.files, parts("hello ", "world"));
    expect(received).toMatchObject({ sizeBytes: 11, sha256: sha256("hello world") });
    expect(await readFile(received.file, "utf8")).toBe("hello world");
  });

  it("hands on the first 64 KiB once, whatever the parts, or all where there is less", async () => {
    const { files } = await newStore();
    const heads: Uint8Array[] = [];
    const onHead = (head: Uint8Array) => heads.push(Uint8Array.from(head));
    const long = new Uint8Array(100_000).map((_, index) => index % 251);
    const chunks = [long.subarray(0, 1), long.subarray(1, 70_000), long.subarray(70_000)];
    await files.receive("test", { source: parts(...chunks), maxBytes: 1e9, announcedBytes: null, onHead });
    await files.receive("test", { source: parts("short"), maxBytes: 1e9, announcedBytes: null, onHead });
    await files.receive("test", { source: parts(), maxBytes: 1e9, announcedBytes: null, onHead });
    expect(heads.map((head) => head.length)).toEqual([65_536, 5, 0]);
    expect(heads[0]).toEqual(long.subarray(0, 65_536));
  });

  it.each([
    ["a source that breaks", parts("abc", new Error("broken")), 1e9, /broken/],
    ["more than the limit", parts("abc", "def"), 5, /larger than 5 bytes/],
  ])("leaves nothing behind after %s", async (_what, source, maxBytes, message) => {
    const store = await newStore();
    await expect(receive(store.files, source, maxBytes)).rejects.toThrow(message);
    expect(await incoming(store)).toEqual([]);
  });

  it("leaves nothing behind after a refusal by the first bytes, and reads no further", async () => {
    const store = await newStore();
    let read = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) {
        read += 40_000;
        yield new Uint8Array(40_000);
      }
    }
    const onHead = () => {
      throw new Error("not this one");
    };
    const options = { source: endless(), maxBytes: 1e12, announcedBytes: null, onHead };
    await expect(store.files.receive("test", options)).rejects.toThrow("not this one");
    expect(read).toBe(80_000);
    expect(await incoming(store)).toEqual([]);
  });

  it("stops when the signal aborts", async () => {
    const store = await newStore();
    const controller = new AbortController();
    async function* aborting(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(10);
      controller.abort(new Error("enough"));
      yield new Uint8Array(10);
    }
    const options = {
      maxBytes: 1e9,
      announcedBytes: null,
      onHead: () => undefined,
      signal: controller.signal,
    };
    await expect(store.files.receive("test", { ...options, source: aborting() })).rejects.toThrow("enough");
    expect(await incoming(store)).toEqual([]);
  });

  it("refuses at once what the disk has no room for", async () => {
    const store = await newStore();
    const options = { source: parts("x"), maxBytes: 2 ** 60, onHead: () => undefined };
    const refused = store.files.receive("test", { ...options, announcedBytes: 2 ** 55 });
    await expect(refused).rejects.toMatchObject({ code: "storage_full", retry: "afterCapacity" });
    expect(await incoming(store)).toEqual([]);
  });

  it("tells a store that is not there as the store's failure", async () => {
    const { files, directory } = await newStore();
    await rm(path.join(directory, "incoming"), { recursive: true });
    await expect(receive(files, parts("x"))).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(/image store.*ENOENT/) as string,
    });
  });

  it("keeps the reserve free", async () => {
    const store = await newStore(2 ** 55);
    await expect(receive(store.files, parts("x"))).rejects.toMatchObject({ code: "storage_full" });
    expect(await incoming(store)).toEqual([]);
  });
});

describe("contents", () => {
  it("are placed under their digest, once, and read back", async () => {
    const store = await newStore();
    const digest = sha256("same");
    for (let time = 0; time < 2; time++) {
      const received = await receive(store.files, parts("same"));
      await store.files.place(received);
      // A transaction that runs again places again.
      await store.files.place(received);
      await store.files.discard(received.file);
    }
    expect(await incoming(store)).toEqual([]);
    expect(await readdir(path.join(store.directory, "sha256", digest.slice(0, 2)))).toEqual([digest]);
    expect(await textOf(store.files.read(digest))).toBe("same");
    expect(await store.files.sizeOf(digest)).toBe(4);
  });

  it("are replaced where they were damaged", async () => {
    const { files } = await newStore();
    const received = await receive(files, parts("whole"));
    await files.place(received);
    await writeFile(files.pathOf(received.sha256), "who");
    await files.place(await receive(files, parts("whole")));
    expect(await textOf(files.read(received.sha256))).toBe("whole");
  });

  it("stay readable to their end when they are withdrawn meanwhile", async () => {
    const store = await newStore();
    const big = Buffer.alloc(3 * 1024 * 1024, "x");
    const received = await receive(store.files, parts(big));
    await store.files.place(received);
    let read = 0;
    for await (const chunk of store.files.read(received.sha256)) {
      if (read === 0) await store.files.discard(store.files.withdraw(received.sha256) ?? "");
      read += chunk.length;
    }
    expect(read).toBe(big.length);
    expect(await store.files.sizeOf(received.sha256)).toBeNull();
  });

  it("can be withdrawn twice", async () => {
    const { files } = await newStore();
    const received = await receive(files, parts("x"));
    await files.place(received);
    expect(files.withdraw(received.sha256)).not.toBeNull();
    expect(files.withdraw(received.sha256)).toBeNull();
  });

  it("are listed folder by folder, strangers left out", async () => {
    const store = await newStore();
    const digests: string[] = [];
    for (const text of ["a", "b", "c"]) {
      const received = await receive(store.files, parts(text));
      await store.files.place(received);
      digests.push(received.sha256);
    }
    await writeFile(path.join(store.directory, "sha256", (digests[0] ?? "").slice(0, 2), "notes.txt"), "");
    const listed: string[] = [];
    for await (const folder of store.files.contents()) listed.push(...folder);
    expect(listed.sort()).toEqual(digests.sort());
  });

  it("have no path for what is no digest", async () => {
    const { files } = await newStore();
    for (const name of ["../../etc/passwd", "", "AB".repeat(32), `${"a".repeat(63)}/`]) {
      expect(() => files.pathOf(name)).toThrow(TypeError);
    }
  });

  it("tell when the received file was swept away before it was placed", async () => {
    const { files } = await newStore();
    const received = await receive(files, parts("late"));
    await files.discard(received.file);
    await expect(files.place(received)).rejects.toMatchObject({ code: "unavailable" });
  });
});

describe("incoming files", () => {
  it("are abandoned when nobody wrote to them for long", async () => {
    const store = await newStore();
    const old = await receive(store.files, parts("old"));
    await receive(store.files, parts("new"));
    const twoHoursAgo = Date.now() / 1000 - 7200;
    await utimes(old.file, twoHoursAgo, twoHoursAgo);
    expect(await store.files.abandoned(3600)).toEqual([old.file]);
    expect(await incoming(store)).toHaveLength(2);
  });

  it("are discarded by their label only", async () => {
    const store = await newStore();
    const options = { maxBytes: 9, announcedBytes: null, onHead: () => undefined };
    await store.files.receive("import-1", { ...options, source: parts("a") });
    const other = await store.files.receive("import-12", { ...options, source: parts("b") });
    await store.files.discardLabelled("import-1");
    expect(await incoming(store)).toEqual([path.basename(other.file)]);
  });
});

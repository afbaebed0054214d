import { execFile } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { contentFile, rawDisk, sha256Of } from "../fixtures/image-parts.ts";
import { type ImagesApi, request, startImagesApi, upload } from "../fixtures/images-api.ts";
import { temporaryDirectory } from "../fixtures/temporary-directory.ts";
import { qcow2File } from "../unit/images/qcow2-sample.ts";

const run = promisify(execFile);

let api: ImagesApi;
beforeAll(async () => {
  api = await startImagesApi({ maxBytes: 128 * 2 ** 20, qemuImg: "qemu-img" });
});
afterAll(async () => {
  await api.close();
});

/** What a refused upload must leave: no row, and no file beside those that were there. */
async function expectNothingOf(name: string, filesBefore: readonly string[]): Promise<void> {
  expect((await request(api, "GET", `/v1/images/${name}`)).status).toBe(404);
  await expect.poll(() => api.store.allFiles(), { timeout: 10_000 }).toEqual(filesBefore);
}

/** Opens an upload by hand: the head is sent, the body is the test's to send. */
async function openUpload(
  name: string,
  headers: readonly string[],
): Promise<{ socket: Socket; answer: Promise<string> }> {
  const { hostname, port } = new URL(api.url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => {
    socket.destroy();
  });
  const answer = new Promise<string>((resolve) => {
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.on("close", () => {
      resolve(text);
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  const head = [
    `PUT /v1/images/${name}/content?kind=disk HTTP/1.1`,
    "Host: x",
    `Authorization: Bearer ${api.token}`,
  ];
  socket.write([...head, ...headers, "", ""].join("\r\n"));
  return { socket, answer };
}

describe("an upload", () => {
  it("becomes an image, ready at once, with what its content says", async () => {
    const bytes = rawDisk();
    const answer = await upload(api, "first", bytes, `kind=disk&sha256=${sha256Of(bytes).toUpperCase()}`);
    expect(answer.status).toBe(201);
    expect(answer.headers.get("etag")).toBe('"1"');
    expect(answer.headers.get("location")).toBe(`/v1/images/${String(answer.body["id"])}`);
    expect(answer.body).toMatchObject({
      name: "first",
      project: "default",
      kind: "disk",
      format: "raw",
      state: "ready",
      error: null,
      sizeBytes: bytes.length,
      virtualSizeBytes: bytes.length,
      sha256: sha256Of(bytes),
      source: { kind: "upload" },
      operations: [],
    });
    expect((await request(api, "GET", "/v1/images/first")).body).toEqual(answer.body);
    const events = await api.database.db.event.findMany({
      where: { subjectName: "first" },
      orderBy: { rowId: "asc" },
    });
    expect(events.map((event) => event.type)).toEqual(["image.created", "image.ready"]);
  });

  it("knows qcow2, and its virtual size", async () => {
    const answer = await upload(api, "cow", qcow2File());
    expect(answer.body).toMatchObject({
      format: "qcow2",
      virtualSizeBytes: 10 * 2 ** 30,
      sizeBytes: 196_768,
    });
    expect(answer.status).toBe(201);
  });

  it("keeps 64 MiB byte for byte, streamed without a length", async () => {
    const directory = await temporaryDirectory();
    const file = path.join(directory, "disk.raw");
    const part = rawDisk(2048 - 2);
    await writeFile(file, Buffer.concat(Array.from({ length: 64 }, () => part)));
    const answer = await upload(api, "large", createReadStream(file));
    expect(answer.body).toMatchObject({ sizeBytes: 64 * 2 ** 20 });
    expect(answer.body["sha256"]).toBe(sha256Of(await readFile(file)));
    await run("cmp", [file, api.store.files.pathOf(String(answer.body["sha256"]))]);
  });

  it("works with the curl line of the documentation", async () => {
    const file = path.join(await temporaryDirectory(), "kernel");
    const kernel = Buffer.alloc(2_000_000);
    kernel.set([0x55, 0xaa], 0x1fe);
    kernel.write("HdrS", 0x202);
    await writeFile(file, kernel);
    const line = ["-sS", "-T", file, "-H", `Authorization: Bearer ${api.token}`];
    const { stdout } = await run("curl", [...line, `${api.url}/v1/images/vmlinuz/content?kind=kernel`]);
    expect(JSON.parse(stdout)).toMatchObject({
      name: "vmlinuz",
      kind: "kernel",
      format: null,
      virtualSizeBytes: null,
    });
  });
});

describe("an upload sent again", () => {
  it("with the same content is the same image", async () => {
    const bytes = rawDisk();
    const first = await upload(api, "again", bytes);
    const second = await upload(api, "again", bytes);
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(second.body).toEqual(first.body);
  });

  it("with another content, kind or size is refused", async () => {
    const bytes = rawDisk();
    await upload(api, "taken", bytes);
    const before = await api.store.allFiles();
    const other = rawDisk();
    for (const refused of [
      await upload(api, "taken", other),
      await upload(api, "taken", rawDisk(9)),
      await upload(api, "taken", bytes, "kind=kernel"),
      await upload(api, "taken", bytes, "kind=disk&format=qcow2"),
      await upload(api, "taken", bytes, `kind=disk&sha256=${sha256Of(other)}`),
    ]) {
      expect(refused).toMatchObject({ status: 409, body: { code: "name_taken" } });
    }
    expect(await api.store.allFiles()).toEqual(before);
  });

  it("at the same time becomes one image, and the others find it", async () => {
    const bytes = rawDisk();
    const answers = await Promise.all(Array.from({ length: 6 }, () => upload(api, "crowd", bytes)));
    expect(answers.map((answer) => answer.status).sort()).toEqual([200, 200, 200, 200, 200, 201]);
    expect(new Set(answers.map((answer) => answer.body["id"])).size).toBe(1);
    expect(await api.store.files.abandoned(-1)).toEqual([]);
  });

  it("at the same time with other content: one wins, the others leave nothing", async () => {
    const contents = Array.from({ length: 5 }, () => rawDisk());
    const answers = await Promise.all(contents.map((bytes) => upload(api, "duel", bytes)));
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 409, 409, 409, 409]);
    const losers = contents.filter((_, index) => answers[index]?.status === 409).map(contentFile);
    await expect
      .poll(async () => (await api.store.allFiles()).filter((file) => losers.includes(file)), {
        timeout: 10_000,
      })
      .toEqual([]);
  });

  it("is bound to its Idempotency-Key by its content", async () => {
    const bytes = rawDisk();
    const headers = { "idempotency-key": "k1" };
    const send = (body: Uint8Array) =>
      request(api, "PUT", "/v1/images/keyed/content?kind=disk", { bytes: body, headers });
    const first = await send(bytes);
    const second = await send(bytes);
    expect(first.status).toBe(201);
    expect(second.status).toBe(201);
    expect(second.headers.get("idempotency-replayed")).toBe("true");
    await request(api, "DELETE", "/v1/images/keyed");
    expect(await send(rawDisk())).toMatchObject({ status: 422, body: { code: "idempotency_key_reused" } });
  });
});

describe("a refused upload leaves nothing", () => {
  it.each([
    [
      "a backing file",
      qcow2File({ backingOffset: 512n, backingLength: 9 }),
      "kind=disk",
      "image_invalid",
      /backing file/,
    ],
    [
      "a virtual size over the limit",
      qcow2File({ virtualSize: 2n ** 45n, l1Entries: 65_536 }),
      "kind=disk",
      "image_invalid",
      /virtual size/,
    ],
    ["a qcow2 that is cut off", qcow2File().subarray(0, 100_000), "kind=disk", "image_invalid", /cut off/],
    ["a gzip", Buffer.from([0x1f, 0x8b, 0x08, 0, 0]), "kind=disk", "image_invalid", /gzip/],
    ["a raw disk of odd length", Buffer.alloc(1000), "kind=disk", "image_invalid", /multiple of 512/],
    ["nothing at all", Buffer.alloc(0), "kind=disk", "image_invalid", /empty/],
    [
      "another format than said",
      Buffer.alloc(512),
      "kind=disk&format=qcow2",
      "image_invalid",
      /not a qcow2 disk/,
    ],
    ["another kind than said", Buffer.alloc(512), "kind=kernel", "image_invalid", /not a kernel/],
    [
      "a wrong checksum",
      Buffer.alloc(512),
      `kind=disk&sha256=${"0".repeat(64)}`,
      "checksum_mismatch",
      /SHA-256/,
    ],
    ["a format of a kernel", Buffer.alloc(512), "kind=kernel&format=raw", "invalid_request", /only a disk/],
    ["no kind", Buffer.alloc(512), "", "invalid_request", /kind/],
    ["a broken checksum", Buffer.alloc(512), "kind=disk&sha256=xyz", "invalid_request", /64 hexadecimal/],
  ])("of %s", async (_what, bytes, query, code, detail) => {
    const before = await api.store.allFiles();
    const answer = await upload(api, "refused", bytes, query);
    expect(answer).toMatchObject({ status: 422, body: { code, retry: "never" } });
    expect(answer.body["detail"]).toMatch(detail);
    await expectNothingOf("refused", before);
  });

  it("of what QEMU itself objects to, where it is installed", async () => {
    const before = await api.store.allFiles();
    // The header is in order for a reader that knows no compression types; this one has no bit that goes with it.
    const file = Uint8Array.from(qcow2File());
    file[104] = 1;
    const answer = await upload(api, "refused", file);
    expect(answer).toMatchObject({ status: 422, body: { code: "image_invalid" } });
    expect(answer.body["detail"]).toMatch(/QEMU cannot open the image/);
    expect(answer.body["detail"]).not.toContain(api.store.directory);
    await expectNothingOf("refused", before);
  });

  it.each(["Web", "a_b", "..%2F..%2Fx", "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77", "x".repeat(64)])(
    "under the name %s, which is told",
    async (name) => {
      const before = await api.store.allFiles();
      const answer = await upload(api, name, rawDisk());
      expect(answer).toMatchObject({ status: 422, body: { code: "invalid_request" } });
      expect(answer.body["violations"]).toMatchObject([{ pointer: "image" }]);
      expect(await api.store.allFiles()).toEqual(before);
    },
  );

  it("without a token, or in a project that is not there", async () => {
    const before = await api.store.allFiles();
    const { url } = api;
    expect((await upload({ url, token: "wrong" }, "refused", rawDisk())).status).toBe(401);
    expect((await upload(api, "refused", rawDisk(), "kind=disk&project=none")).status).toBe(404);
    await expectNothingOf("refused", before);
  });

  it("over the size limit, by its length and by its bytes, and the client reads why", async () => {
    const before = await api.store.allFiles();
    const chunk = new Uint8Array(2 ** 20);
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (let sent = 0; sent < 160; sent++) yield chunk;
    }
    expect(await upload(api, "refused", endless())).toMatchObject({
      status: 413,
      body: { code: "payload_too_large" },
    });
    const { socket, answer } = await openUpload("refused", [
      "Content-Length: 999999999999",
      "Connection: close",
    ]);
    socket.write(rawDisk());
    expect(await answer).toMatch(/^HTTP\/1.1 413 /);
    await expectNothingOf("refused", before);
  });

  it("that is refused by its first bytes, though the client sends all before it reads", async () => {
    const before = await api.store.allFiles();
    const bytes = Buffer.alloc(20 * 2 ** 20);
    bytes.write("KDMV");
    const { socket, answer } = await openUpload("refused", [
      `Content-Length: ${bytes.length}`,
      "Connection: close",
    ]);
    socket.pause();
    await new Promise<void>((resolve) =>
      socket.write(bytes, () => {
        resolve();
      }),
    );
    socket.resume();
    expect(await answer).toMatch(/^HTTP\/1.1 422 [\s\S]*VMDK/);
    await expectNothingOf("refused", before);
  });
});

describe("an upload that breaks off leaves nothing", () => {
  it.each([
    ["with a length", ["Content-Length: 1000000"], rawDisk(64)],
    [
      "in chunks",
      ["Transfer-Encoding: chunked"],
      Buffer.concat([Buffer.from("200\r\n"), Buffer.alloc(512), Buffer.from("\r\n")]),
    ],
    ["before its first byte", ["Content-Length: 1000000"], Buffer.alloc(0)],
  ])("%s", async (_how, headers, beginning) => {
    const before = await api.store.allFiles();
    const { socket } = await openUpload("broken", headers);
    socket.write(beginning);
    await expect
      .poll(async () => (await api.store.allFiles()).length, { timeout: 10_000 })
      .toBe(before.length + 1);
    socket.destroy();
    await expectNothingOf("broken", before);
  });

  it("because the client falls silent", async () => {
    const slow = await startImagesApi({ uploadIdleSeconds: 0.2 });
    onTestFinished(() => slow.close());
    const part = new Uint8Array(512);
    async function* stalling(): AsyncGenerator<Uint8Array> {
      yield part;
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      yield part;
    }
    const answer = await upload(slow, "silent", stalling());
    expect(answer).toMatchObject({ status: 408, body: { retry: "temporary" } });
    expect(await slow.store.allFiles()).toEqual([]);
  });
});

describe.runIf(process.getuid?.() === 0)("a full disk", () => {
  it("is told as such, and frees what was written", async () => {
    const directory = path.join(await temporaryDirectory(), "images");
    await mkdir(directory);
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory]);
    const small = await startImagesApi({ directory });
    onTestFinished(async () => {
      await small.close().catch(() => undefined);
      await run("umount", [directory]);
    });
    const bytes = rawDisk(6 * 2048);
    async function* withoutLength(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
    }
    for (const body of [withoutLength(), bytes]) {
      const answer = await upload(small, "big", body);
      expect(answer).toMatchObject({ status: 507, body: { code: "storage_full", retry: "afterCapacity" } });
      expect(await small.store.allFiles()).toEqual([]);
    }
    expect((await upload(small, "small", rawDisk())).status).toBe(201);
  });
});

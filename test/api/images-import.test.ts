import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { contentFile, rawDisk, sha256Of } from "../fixtures/image-parts.ts";
import { type Answer, type ImagesApi, request, startImagesApi, upload } from "../fixtures/images-api.ts";
import { qcow2File } from "../unit/images/qcow2-sample.ts";

let api: ImagesApi;
let origin = "";
type Handler = (request: IncomingMessage, response: ServerResponse) => void;
const handlers = new Map<string, Handler>();
const server = createServer((incoming, response) => {
  const handler = handlers.get((incoming.url ?? "").split("?")[0] ?? "");
  if (handler === undefined) response.writeHead(404).end();
  else handler(incoming, response);
});

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  api = await startImagesApi({
    allow: ["127.0.0.1"],
    maxBytes: 2 ** 24,
    resolve: () => Promise.resolve([{ address: "10.9.8.7", family: 4 }]),
  });
});
afterAll(async () => {
  await api.close();
  server.closeAllConnections();
  server.close();
});

/** Serves bytes under a path of their own. */
function serve(path: string, bytes: Uint8Array): string {
  handlers.set(path, (_request, response) => response.setHeader("content-length", bytes.length).end(bytes));
  return `${origin}${path}`;
}

async function importImage(
  name: string,
  source: object,
  more: object = {},
  query = "wait=30",
): Promise<Answer> {
  const json = { name, kind: "disk", source: { kind: "url", ...source }, ...more };
  return await request(api, "POST", `/v1/images?${query}`, { json });
}

describe("an import", () => {
  it("fetches the image by an operation, with progress in bytes", async () => {
    const bytes = rawDisk(200);
    const url = serve("/good", bytes);
    const answer = await importImage(
      "good",
      { url: `${url}?signature=secret`, sha256: sha256Of(bytes) },
      { labels: { a: "b" } },
    );
    expect(answer.status).toBe(202);
    expect(answer.body).toMatchObject({
      image: {
        state: "ready",
        format: "raw",
        sizeBytes: bytes.length,
        sha256: sha256Of(bytes),
        labels: { a: "b" },
        source: { kind: "url", url },
        operations: [],
      },
      operation: {
        kind: "image.import",
        state: "succeeded",
        targets: [{ kind: "image", name: "good" }],
        steps: [{ name: "download", state: "succeeded" }],
      },
    });
    expect(JSON.stringify(answer.body)).not.toContain("secret");
    expect(await api.store.allFiles()).toContain(contentFile(bytes));
    const events = await api.database.db.event.findMany({
      where: { subjectKind: "image", subjectName: "good" },
      orderBy: { rowId: "asc" },
    });
    expect(events.map((event) => event.type)).toEqual(["image.created", "image.ready"]);
  });

  it("answers at once, shows its operation, and is repeated by its key", async () => {
    const gate = Promise.withResolvers<undefined>();
    const bytes = rawDisk();
    handlers.set("/slow", (_request, response) => {
      void gate.promise.then(() => response.end(bytes));
    });
    const json = { name: "slow", kind: "disk", source: { kind: "url", url: `${origin}/slow` } };
    const send = () =>
      request(api, "POST", "/v1/images", { json, headers: { "idempotency-key": "import-1" } });
    const first = await send();
    const again = await send();
    expect(again.status).toBe(202);
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    const image = first.body["image"] as { id: string; operations: string[] };
    expect(image).toMatchObject({ state: "importing", sizeBytes: null, sha256: null });
    expect((again.body["image"] as { id: string }).id).toBe(image.id);
    expect((await request(api, "GET", "/v1/images/slow")).body).toMatchObject({
      operations: image.operations,
    });
    expect(await upload(api, "slow", bytes)).toMatchObject({ status: 409, body: { code: "name_taken" } });
    gate.resolve(undefined);
    await expect
      .poll(async () => (await request(api, "GET", "/v1/images/slow")).body["state"], { timeout: 30_000 })
      .toBe("ready");
  });

  it("tries again when the server fails once", async () => {
    const bytes = rawDisk();
    let times = 0;
    handlers.set("/flaky", (_request, response) => {
      times++;
      if (times === 1) response.writeHead(503).end();
      else if (times === 2) response.write(bytes.subarray(0, 600), () => response.destroy());
      else response.end(bytes);
    });
    const answer = await importImage("flaky", { url: `${origin}/flaky` });
    expect(answer.body).toMatchObject({ image: { state: "ready" }, operation: { state: "succeeded" } });
    expect(times).toBe(3);
    expect(await api.store.files.abandoned(-1)).toEqual([]);
  });

  it.each([
    ["of another checksum", rawDisk(), { sha256: "0".repeat(64) }, {}, "checksum_mismatch"],
    ["with a backing file", qcow2File({ backingOffset: 512n, backingLength: 4 }), {}, {}, "image_invalid"],
    ["of another format", rawDisk(), {}, { format: "qcow2" }, "image_invalid"],
    ["larger than the limit", Buffer.alloc(2 ** 24 + 512), {}, {}, "payload_too_large"],
    ["that is a web page", Buffer.from("<!DOCTYPE html>"), {}, {}, "image_invalid"],
  ])("%s fails, stays with its error, and can be deleted", async (_what, bytes, source, more, code) => {
    const url = serve("/bad", bytes);
    const before = await api.store.allFiles();
    const answer = await importImage("bad", { url, ...source }, more);
    expect(answer.body).toMatchObject({
      image: { state: "failed", error: { code }, sha256: null, sizeBytes: null },
      operation: { state: "failed", error: { code } },
    });
    expect(await api.store.allFiles()).toEqual(before);
    expect(await upload(api, "bad", rawDisk())).toMatchObject({ status: 409 });
    expect((await request(api, "DELETE", "/v1/images/bad")).status).toBe(204);
  });

  it("of what is not there fails at once", async () => {
    const answer = await importImage("missing", { url: `${origin}/nothing` });
    expect(answer.body).toMatchObject({
      image: { state: "failed" },
      operation: { steps: [{ attempts: 1 }] },
    });
  });

  it("is cancelled when its image is deleted, and leaves nothing", async () => {
    const closed = Promise.withResolvers<undefined>();
    const bytes = rawDisk(200);
    handlers.set("/endless", (_request, response) => {
      response.write(bytes);
      response.on("close", () => {
        closed.resolve(undefined);
      });
    });
    const before = await api.store.allFiles();
    const answer = await importImage("doomed", { url: `${origin}/endless` }, {}, "wait=0");
    const { id } = answer.body["operation"] as { id: string };
    await expect
      .poll(async () => (await api.store.allFiles()).length, { timeout: 30_000 })
      .toBe(before.length + 1);
    expect((await request(api, "DELETE", "/v1/images/doomed")).status).toBe(204);
    expect((await request(api, "GET", "/v1/images/doomed")).status).toBe(404);
    await closed.promise;
    await expect
      .poll(async () => (await api.database.db.operation.findUnique({ where: { id } }))?.state, {
        timeout: 30_000,
      })
      .toBe("cancelled");
    expect(await api.store.allFiles()).toEqual(before);
  });
});

describe("an import is refused", () => {
  it.each([
    "http://169.254.169.254/latest/meta-data",
    "http://127.0.0.2/x",
    "http://[::1]/x",
    "http://2130706434/x",
    "https://10.0.0.1/x",
  ])("at once from %s", async (url) => {
    const answer = await importImage("inside", { url });
    expect(answer).toMatchObject({ status: 422, body: { code: "address_forbidden" } });
    expect(answer.body["detail"]).toContain("DROVER_IMAGE_IMPORT_ALLOW");
    expect((await request(api, "GET", "/v1/images/inside")).status).toBe(404);
  });

  it("by its operation from a name that resolves to the inside, and from a redirect there", async () => {
    handlers.set("/redirect", (_request, response) => {
      response.writeHead(302, { location: "http://169.254.169.254/latest" }).end();
    });
    for (const url of ["http://looks-public.example/x", `${origin}/redirect`]) {
      const answer = await importImage("inside", { url });
      expect(answer.body).toMatchObject({
        image: { state: "failed", error: { code: "address_forbidden" } },
        operation: { steps: [{ attempts: 1 }] },
      });
      expect((await request(api, "DELETE", "/v1/images/inside")).status).toBe(204);
    }
  });

  it.each([
    ["a file", { url: "file:///etc/passwd" }, {}, "/source/url"],
    ["credentials in the URL", { url: "https://user:secret@example.org/x" }, {}, "/source/url"],
    ["no URL", {}, {}, "/source/url"],
    ["a checksum that is none", { url: "https://example.org/x", sha256: "abc" }, {}, "/source/sha256"],
    [
      "a kernel with a format",
      { url: "https://example.org/x" },
      { kind: "kernel", format: "raw" },
      "/format",
    ],
    ["a wrong name", { url: "https://example.org/x" }, { name: "../../x" }, "/name"],
    ["an unknown member", { url: "https://example.org/x", header: "x" }, {}, "/source/header"],
  ])("with %s", async (_what, source, more, pointer) => {
    const answer = await importImage("wrong", source, more);
    expect(answer).toMatchObject({
      status: 422,
      body: { code: "invalid_request", violations: [{ pointer }] },
    });
    expect(JSON.stringify(answer.body)).not.toContain("secret");
  });

  it("under a name that is taken", async () => {
    await upload(api, "occupied", rawDisk());
    const answer = await importImage("occupied", { url: `${origin}/x` });
    expect(answer).toMatchObject({ status: 409, body: { code: "name_taken" } });
  });
});

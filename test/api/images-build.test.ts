import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newId } from "../../src/lib/ids.ts";
import { makeFakeBuildTools } from "../fixtures/build-tools.ts";
import { rawDisk } from "../fixtures/image-parts.ts";
import { type Answer, type ImagesApi, request, startImagesApi, upload } from "../fixtures/images-api.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";

let scratch: string;
let api: ImagesApi;

beforeAll(async () => {
  scratch = await makeScratchDirectory();
  api = await startImagesApi({
    buildTools: await makeFakeBuildTools(scratch),
    resolve: () => Promise.resolve([{ address: "10.9.8.7", family: 4 }]),
  });
});
afterAll(async () => {
  await api.close();
  await rm(scratch, { recursive: true, force: true });
});

const PATIENCE = { timeout: 30_000 };

async function build(
  name: string,
  source: object = {},
  more: object = {},
  query = "wait=60",
): Promise<Answer> {
  const json = { name, kind: "disk", source: { kind: "debootstrap", suite: "bookworm", ...source }, ...more };
  return await request(api, "POST", `/v1/images?${query}`, { json });
}

async function readLog(name: string, query = ""): Promise<{ status: number; text: string }> {
  const headers = { authorization: `Bearer ${api.token}` };
  const answer = await fetch(`${api.url}/v1/images/${name}/log${query}`, { headers });
  return { status: answer.status, text: await answer.text() };
}

async function stateOf(operationId: string): Promise<string | undefined> {
  return (await api.database.db.operation.findUnique({ where: { id: operationId } }))?.state;
}

function operationOf({ body }: Answer): { id: string } {
  return body["operation"] as { id: string };
}

/** Directories of builds, by their operations. */
async function builds(): Promise<string[]> {
  const names = await readdir(path.join(api.store.directory, "builds"));
  return names.map((name) => name.split(".")[0] ?? "");
}

/** Waits until the programs of a build are at work. */
async function untilSlow(name: string): Promise<void> {
  await expect.poll(async () => (await readLog(name)).text, PATIENCE).toContain("this one is slow");
}

/** Command lines of programs that work in the image store. */
async function running(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return lines.filter((line) => line.includes(api.store.directory));
}

describe("a build", () => {
  it("makes a disk by an operation with steps, and keeps its log", async () => {
    const answer = await build(
      "debian",
      { packages: ["curl", "g++"], sizeGib: 2 },
      { labels: { os: "debian" } },
    );
    expect(answer.status).toBe(202);
    expect(answer.body).toMatchObject({
      image: {
        state: "ready",
        kind: "disk",
        format: "qcow2",
        labels: { os: "debian" },
        source: {
          kind: "debootstrap",
          suite: "bookworm",
          mirror: null,
          packages: ["curl", "g++"],
          cloudInit: true,
          sizeGib: 2,
        },
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as unknown,
      },
      operation: {
        kind: "image.build",
        state: "succeeded",
        targets: [{ kind: "image", name: "debian" }],
        steps: [
          { name: "bootstrap", state: "succeeded", progress: { total: 2, unit: "items" } },
          { name: "make-disk", state: "succeeded" },
          { name: "store", state: "succeeded" },
        ],
      },
    });
    const { sha256 } = answer.body["image"] as { sha256: string };
    expect(await api.store.files.sizeOf(sha256)).toBeGreaterThan(0);
    expect(await builds()).toEqual([]);
    const log = await readLog("debian");
    expect(log.status).toBe(200);
    expect(log.text).toMatch(/the packages are .*cloud-init.*,curl,g\+\+$/m);
    expect(log.text).toContain("debian-security/ bookworm-security main");
    expect((await readLog("debian", "?maxBytes=10")).text).toBe(log.text.slice(-10));
    const events = await api.database.db.event.findMany({
      where: { subjectKind: "image", subjectName: "debian" },
      orderBy: { rowId: "asc" },
    });
    expect(events.map((event) => event.type)).toEqual(["image.created", "image.ready"]);
  });

  it("leaves cloud-init out where it is not wanted", async () => {
    expect((await build("plain", { cloudInit: false })).body).toMatchObject({ image: { state: "ready" } });
    expect((await readLog("plain")).text).not.toContain("cloud-init");
  });

  it("is stopped by a cancel, with all that it started, and leaves nothing but the log", async () => {
    const { id } = operationOf(await build("cancelled", { suite: "slow" }, {}, "wait=0"));
    await untilSlow("cancelled");
    expect(await running()).not.toEqual([]);
    const image = (await request(api, "GET", "/v1/images/cancelled")).body;
    expect(image).toMatchObject({ state: "building", operations: [id], sha256: null });
    await api.cancel(id);
    await expect.poll(() => stateOf(id), PATIENCE).toBe("cancelled");
    expect(await running()).toEqual([]);
    expect(await builds()).toEqual([]);
    expect((await request(api, "GET", "/v1/images/cancelled")).body).toMatchObject({
      state: "failed",
      error: { code: "cancelled" },
    });
    expect((await readLog("cancelled")).text).toMatch(/stopped\n$/);
  });

  it("is cancelled when its image is deleted, and leaves no log either", async () => {
    const answer = await build("doomed", { suite: "slow" }, {}, "wait=0");
    const { id } = operationOf(answer);
    const { id: imageId } = answer.body["image"] as { id: string };
    await untilSlow("doomed");
    expect((await request(api, "DELETE", "/v1/images/doomed")).status).toBe(204);
    await expect.poll(() => stateOf(id), PATIENCE).toBe("cancelled");
    expect(await builds()).toEqual([]);
    expect(await api.store.builder.logs.imageIds()).not.toContain(imageId);
  });

  it("waits for its turn while another is under way, and says so", async () => {
    const first = operationOf(await build("first", { suite: "slow" }, {}, "wait=0"));
    await untilSlow("first");
    const second = operationOf(await build("second", {}, {}, "wait=0"));
    await expect
      .poll(
        async () => (await api.database.db.operation.findUnique({ where: { id: second.id } }))?.waitReason,
        PATIENCE,
      )
      .toMatchObject({
        message: expect.stringContaining("one operation of the kind image.build") as unknown,
      });
    expect(await stateOf(second.id)).toBe("pending");
    await api.cancel(first.id);
    await expect.poll(() => stateOf(second.id), PATIENCE).toBe("succeeded");
  });

  it.each([
    ["broken", "image_build_failed", /no package no-such-thing/, 1],
    ["offline", "download_failed", /mirror could not be reached/, 3],
  ])("of the suite %s fails with %s", async (suite, code, message, attempts) => {
    const answer = await build(suite, { suite });
    expect(answer.body).toMatchObject({
      image: { state: "failed", error: { code, message: expect.stringMatching(message) as unknown } },
      operation: { state: "failed", steps: [{ name: "bootstrap", attempts }] },
    });
    expect(await builds()).toEqual([]);
    expect((await readLog(suite)).text).toContain("E: ");
  });
});

describe("what a killed service left", () => {
  it("is swept: builds that have ended, logs of images that are gone", async () => {
    await build("kept");
    const operation = operationOf(await build("under-way", { suite: "slow" }, {}, "wait=0"));
    await untilSlow("under-way");
    const left = newId();
    await mkdir(path.join(api.store.directory, "builds", `${left}.x`, "root"), { recursive: true });
    await writeFile(path.join(api.store.directory, "build-logs", `${left}.log`), "left");
    api.store.collector.start();
    await expect.poll(builds, PATIENCE).toEqual([operation.id]);
    await expect.poll(() => api.store.builder.logs.imageIds(), PATIENCE).not.toContain(left);
    expect((await readLog("kept")).text).not.toBe("");
    await api.cancel(operation.id);
    await expect.poll(() => stateOf(operation.id), PATIENCE).toBe("cancelled");
  });
});

describe("a build is refused", () => {
  it.each([
    ["a suite that is none", { suite: "bookworm; rm -rf /" }, {}, "/source/suite"],
    ["an option for a suite", { suite: "--help" }, {}, "/source/suite"],
    ["an option for a package", { packages: ["--option"] }, {}, "/source/packages/0"],
    ["two packages in one", { packages: ["curl,vim"] }, {}, "/source/packages/0"],
    ["a package to remove", { packages: ["curl", "apt-"] }, {}, "/source/packages/1"],
    ["a mirror in a file", { mirror: "file:///srv/debian" }, {}, "/source/mirror"],
    ["credentials in the mirror", { mirror: "https://user:secret@example.org/" }, {}, "/source/mirror"],
    ["a mirror with options", { mirror: "https://example.org/[trusted=yes]" }, {}, "/source/mirror"],
    ["a disk of no size", { sizeGib: 0 }, {}, "/source/sizeGib"],
    ["a password", { rootPassword: "secret" }, {}, "/source/rootPassword"],
    ["another kind", {}, { kind: "kernel" }, "/kind"],
    ["another format", {}, { format: "raw" }, "/format"],
  ])("with %s", async (_what, source, more, pointer) => {
    const answer = await build("wrong", source, more);
    expect(answer).toMatchObject({
      status: 422,
      body: { code: "invalid_request", violations: [{ pointer }] },
    });
    expect(JSON.stringify(answer.body)).not.toContain("secret");
    expect((await request(api, "GET", "/v1/images/wrong")).status).toBe(404);
  });

  it.each(["http://169.254.169.254/debian", "http://127.0.0.1:8000/debian", "https://[::1]/debian"])(
    "at once from the mirror %s",
    async (mirror) => {
      const answer = await build("inside", { mirror });
      expect(answer).toMatchObject({ status: 422, body: { code: "address_forbidden" } });
      expect(answer.body["detail"]).toContain("DROVER_IMAGE_IMPORT_ALLOW");
    },
  );

  it("under a name that is taken", async () => {
    await upload(api, "occupied", rawDisk());
    expect(await build("occupied")).toMatchObject({ status: 409, body: { code: "name_taken" } });
  });

  it("where programs are missing, before anything is queued", async () => {
    const bare = await startImagesApi({ buildTools: { path: scratch, keyring: path.join(scratch, "none") } });
    try {
      const json = { name: "debian", kind: "disk", source: { kind: "debootstrap", suite: "bookworm" } };
      const answer = await request(bare, "POST", "/v1/images", { json });
      expect(answer).toMatchObject({ status: 409, body: { code: "capability_unsupported" } });
      expect(answer.body["detail"]).toMatch(/apt install mmdebstrap .*debian-archive-keyring/);
      expect(await bare.database.db.operation.count()).toBe(0);
      expect(await bare.database.db.image.count()).toBe(0);
    } finally {
      await bare.close();
    }
  });
});

it("has no log where an image was not built", async () => {
  await upload(api, "uploaded", rawDisk());
  const { status, text } = await readLog("uploaded");
  expect(status).toBe(404);
  expect(text).toContain("was not built here");
});

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newId, type VmId } from "../../src/lib/ids.ts";
import { contentFile, rawDisk } from "../fixtures/image-parts.ts";
import { type ImagesApi, request, startImagesApi, upload } from "../fixtures/images-api.ts";

let api: ImagesApi;
beforeAll(async () => {
  api = await startImagesApi();
});
afterAll(async () => {
  await api.close();
});

/** A VM that uses the image. */
async function addVm(name: string, imageId: string): Promise<VmId> {
  const id = newId<VmId>();
  const { projectId } = api;
  await api.database.db.vm.create({
    data: {
      id,
      projectId,
      name,
      spec: {},
      phase: "ready",
      images: { create: { role: "disk:root", imageId } },
    },
  });
  return id;
}

describe("deleting an image", () => {
  it("removes it and its content", async () => {
    const bytes = rawDisk();
    await upload(api, "mortal", bytes);
    expect((await request(api, "DELETE", "/v1/images/mortal")).status).toBe(204);
    expect((await request(api, "GET", "/v1/images/mortal")).status).toBe(404);
    await expect.poll(() => api.store.allFiles(), { timeout: 10_000 }).not.toContain(contentFile(bytes));
    expect((await request(api, "DELETE", "/v1/images/mortal")).status).toBe(404);
  });

  it("leaves no content behind, however many are deleted at once", async () => {
    const contents = Array.from({ length: 20 }, () => rawDisk());
    await Promise.all(contents.map((bytes, index) => upload(api, `many-${index}`, bytes)));
    await Promise.all(contents.map((_, index) => request(api, "DELETE", `/v1/images/many-${index}`)));
    await api.store.collector.stop();
    const files = await api.store.allFiles();
    expect(contents.map(contentFile).filter((file) => files.includes(file))).toEqual([]);
  });

  it("keeps a content that another image has", async () => {
    const bytes = rawDisk();
    await upload(api, "twin-a", bytes);
    await upload(api, "twin-b", bytes);
    await request(api, "DELETE", "/v1/images/twin-a");
    await api.store.collector.stop();
    expect(await api.store.allFiles()).toContain(contentFile(bytes));
    await request(api, "DELETE", "/v1/images/twin-b");
    await expect.poll(() => api.store.allFiles(), { timeout: 10_000 }).not.toContain(contentFile(bytes));
  });

  it("is refused while VMs use it, and names ten of them", async () => {
    const bytes = rawDisk();
    const id = String((await upload(api, "used", bytes)).body["id"]);
    const vms: VmId[] = [];
    for (let index = 0; index < 12; index++)
      vms.push(await addVm(`web-${String(index).padStart(2, "0")}`, id));
    const refused = await request(api, "DELETE", `/v1/images/${id}`);
    expect(refused).toMatchObject({ status: 409, body: { code: "in_use", retry: "afterStateChange" } });
    const named = Array.from({ length: 10 }, (_, index) => `web-${String(index).padStart(2, "0")}`);
    expect(refused.body["details"]).toEqual({ vms: named });
    expect(refused.body["detail"]).toContain("web-09 and others");
    await api.store.collector.stop();
    expect(await api.store.allFiles()).toContain(contentFile(bytes));
    await api.database.db.vm.deleteMany({ where: { id: { in: vms } } });
    expect((await request(api, "DELETE", `/v1/images/${id}`)).status).toBe(204);
  });

  it("races with uploads of the same content and name without ever losing a file", async () => {
    const bytes = rawDisk();
    for (let round = 0; round < 15; round++) {
      await upload(api, "contested", bytes);
      const [again, deleted] = await Promise.all([
        upload(api, "contested", bytes),
        request(api, "DELETE", "/v1/images/contested"),
      ]);
      expect([200, 201]).toContain(again.status);
      expect(deleted.status).toBe(204);
      await api.store.collector.stop();
      const left = await request(api, "GET", "/v1/images/contested");
      const files = await api.store.allFiles();
      if (left.status === 200) expect(files).toContain(contentFile(bytes));
      else expect(files).not.toContain(contentFile(bytes));
      await request(api, "DELETE", "/v1/images/contested");
      await api.store.collector.stop();
    }
  });

  it("wants the revision that the client knows", async () => {
    await upload(api, "guarded", rawDisk());
    const stale = await request(api, "DELETE", "/v1/images/guarded", { headers: { "if-match": '"7"' } });
    expect(stale.status).toBe(412);
    const right = await request(api, "DELETE", "/v1/images/guarded", { headers: { "if-match": '"1"' } });
    expect(right.status).toBe(204);
  });
});

describe("changing an image", () => {
  it("merges labels and counts revisions", async () => {
    await upload(api, "labelled", rawDisk());
    const patch = (labels: unknown, headers = {}) =>
      request(api, "PATCH", "/v1/images/labelled", { json: { labels }, headers });
    expect(await patch({ os: "debian", old: "x" })).toMatchObject({
      status: 200,
      body: { labels: { os: "debian", old: "x" }, generation: 2 },
    });
    const second = await patch({ old: null, arch: "amd64" }, { "if-match": '"2"' });
    expect(second.body).toMatchObject({ labels: { os: "debian", arch: "amd64" }, generation: 3 });
    expect(second.headers.get("etag")).toBe('"3"');
    expect((await patch({ os: "debian" })).body).toMatchObject({ generation: 3 });
    expect((await patch({ os: "x" }, { "if-match": '"2"' })).status).toBe(412);
  });

  it("refuses what is for good, and too many labels", async () => {
    await upload(api, "fixed", rawDisk());
    const patch = (json: unknown) => request(api, "PATCH", "/v1/images/fixed", { json });
    expect(await patch({ name: "other" })).toMatchObject({
      status: 422,
      body: { violations: [{ pointer: "/name" }] },
    });
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`k${index}`, "v"]));
    expect(await patch({ labels: many })).toMatchObject({
      status: 422,
      body: { violations: [{ pointer: "/labels" }] },
    });
    expect((await request(api, "GET", "/v1/images/fixed")).body).toMatchObject({ labels: {}, generation: 1 });
  });
});

describe("listing images", () => {
  it("pages through them in order, with filters", async () => {
    const initrd = Buffer.from("070701 an archive");
    for (const name of ["list-c", "list-a", "list-b"]) await upload(api, name, rawDisk());
    await upload(api, "list-d", initrd, "kind=initrd");
    for (const name of ["list-a", "list-b", "list-c"]) {
      const labels = { set: "list", ...(name === "list-b" ? { tier: "db" } : {}) };
      await request(api, "PATCH", `/v1/images/${name}`, { json: { labels } });
    }
    const names = async (query: string): Promise<string[]> => {
      const found: string[] = [];
      let token = "";
      do {
        const page = await request(api, "GET", `/v1/images?${query}&pageSize=1${token}`);
        expect(page.status).toBe(200);
        const items = page.body["items"] as { name: string }[];
        found.push(...items.map((item) => item.name).filter((name) => name.startsWith("list-")));
        const next = page.body["nextPageToken"];
        token = typeof next === "string" ? `&pageToken=${next}` : "";
      } while (token !== "");
      return found;
    };
    expect(await names("kind=disk")).toEqual(["list-a", "list-b", "list-c"]);
    expect(await names("kind=disk&orderBy=-name")).toEqual(["list-c", "list-b", "list-a"]);
    expect(await names("orderBy=createdAt")).toEqual(["list-c", "list-a", "list-b", "list-d"]);
    expect(await names("orderBy=-createdAt&kind=disk")).toEqual(["list-b", "list-a", "list-c"]);
    expect(await names("kind=initrd")).toEqual(["list-d"]);
    expect(await names("name=list-b")).toEqual(["list-b"]);
    expect(await names("state=failed")).toEqual([]);
    const select = (selector: string) => names(`labelSelector=${encodeURIComponent(selector)}`);
    expect(await select("set=list")).toEqual(["list-a", "list-b", "list-c"]);
    expect(await select("set=list,tier!=db")).toEqual(["list-a", "list-c"]);
    expect(await select("tier")).toEqual(["list-b"]);
    expect(await select("set in (list,other),!tier")).toEqual(["list-a", "list-c"]);
    expect(await select("set notin (list)")).toEqual(["list-d"]);
    expect(await request(api, "GET", "/v1/images?kind=floppy")).toMatchObject({ status: 422 });
  });

  it("shows no images of other projects", async () => {
    const projectId = newId();
    await api.database.db.project.create({ data: { id: projectId, name: "other" } });
    await upload(api, "elsewhere", rawDisk(), "kind=disk&project=other");
    expect((await request(api, "GET", "/v1/images/elsewhere")).status).toBe(404);
    expect((await request(api, "GET", "/v1/images/elsewhere?project=other")).status).toBe(200);
    expect((await request(api, "DELETE", "/v1/images/elsewhere")).status).toBe(404);
    const list = await request(api, "GET", "/v1/images?name=elsewhere");
    expect(list.body["items"]).toEqual([]);
    expect((await upload(api, "elsewhere", rawDisk())).status).toBe(201);
  });
});

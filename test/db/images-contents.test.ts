import { utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createImageContents } from "../../src/images/image-content.ts";
import { collectContent, placeContent, sweepContents } from "../../src/images/image-contents.ts";
import {
  contentsInUse,
  deleteImageRow,
  getImage,
  insertImportingImage,
  insertReadyImage,
  lockContent,
  setArrivedContent,
  setImageFailed,
  setImageReady,
} from "../../src/images/image-store.ts";
import type { ReceivedFile } from "../../src/images/incoming-file.ts";
import { type ImageId, newId, type ProjectId } from "../../src/lib/ids.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import {
  contentFile,
  createImageStore,
  type ImageStore,
  rawDisk,
  sha256Of,
} from "../fixtures/image-parts.ts";

let database: TestDatabase;
let store: ImageStore;
const projectId = newId<ProjectId>();

beforeAll(async () => {
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "contents" } });
  store = await createImageStore(database.db);
});

afterAll(async () => {
  await store.remove();
  await database.drop();
});

async function receive(bytes: Uint8Array): Promise<ReceivedFile> {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes;
  }
  return await store.files.receive("test", {
    source: source(),
    maxBytes: 1e9,
    announcedBytes: bytes.length,
    onHead: () => undefined,
  });
}

const facts = (bytes: Uint8Array) => ({
  sha256: sha256Of(bytes),
  sizeBytes: bytes.length,
  format: "raw" as const,
  virtualSizeBytes: bytes.length,
});

function newImage() {
  const id = newId<ImageId>();
  return { id, projectId, name: `i-${id}`, kind: "disk" as const, labels: {} };
}

/** Stores bytes as a new image, as an upload does. */
async function storeImage(bytes: Uint8Array): Promise<ImageId> {
  const received = await receive(bytes);
  const image = newImage();
  await database.db.transaction(async (tx) => {
    await placeContent(tx, store.files, received);
    await insertReadyImage(tx, image, facts(bytes));
  });
  await store.files.discard(received.file);
  return image.id;
}

/** Deletes an image's row and looks after its content, as the API does. */
async function remove(id: ImageId, sha256: string): Promise<void> {
  await database.db.transaction(async (tx) => {
    await lockContent(tx, sha256);
    await deleteImageRow(tx, id);
    store.collector.collect(sha256);
  });
}

const deps = () => ({ database: database.db, files: store.files });

describe("a content", () => {
  it("is kept while an image refers to it, and goes with the last", async () => {
    const bytes = rawDisk();
    const [first, second] = [await storeImage(bytes), await storeImage(bytes)];
    expect(await store.allFiles()).toContain(contentFile(bytes));
    await remove(first, sha256Of(bytes));
    await store.collector.stop();
    expect(await store.allFiles()).toContain(contentFile(bytes));
    await remove(second, sha256Of(bytes));
    await store.collector.stop();
    expect(await store.allFiles()).not.toContain(contentFile(bytes));
  });

  it("waits to be collected until the transaction that ends its use has ended", async () => {
    const bytes = rawDisk();
    const id = await storeImage(bytes);
    const rolledBack = database.db.transaction(async (tx) => {
      await lockContent(tx, sha256Of(bytes));
      await deleteImageRow(tx, id);
      store.collector.collect(sha256Of(bytes));
      await new Promise((resolve) => setTimeout(resolve, 100));
      throw new Error("changed my mind");
    });
    await expect(rolledBack).rejects.toThrow("changed my mind");
    await store.collector.stop();
    expect(await store.allFiles()).toContain(contentFile(bytes));
    await remove(id, sha256Of(bytes));
    await store.collector.stop();
  });

  it("survives any race of its removal with an upload of the same bytes", async () => {
    const bytes = rawDisk();
    for (let round = 0; round < 25; round++) {
      const old = await storeImage(bytes);
      const [kept] = await Promise.all([
        storeImage(bytes),
        remove(old, sha256Of(bytes)),
        collectContent(deps(), sha256Of(bytes)),
      ]);
      await store.collector.stop();
      expect(await store.allFiles()).toContain(contentFile(bytes));
      await remove(kept, sha256Of(bytes));
      await store.collector.stop();
      expect(await store.allFiles()).not.toContain(contentFile(bytes));
    }
  });

  it("is placed by whoever comes first, when many upload the same at once", async () => {
    const bytes = rawDisk();
    const ids = await Promise.all(Array.from({ length: 8 }, () => storeImage(bytes)));
    expect((await store.allFiles()).filter((file) => file === contentFile(bytes))).toHaveLength(1);
    await Promise.all(ids.map((id) => remove(id, sha256Of(bytes))));
    await store.collector.stop();
    expect(await store.allFiles()).not.toContain(contentFile(bytes));
  });
});

describe("the sweep", () => {
  it("removes contents without an image and old incoming files, and nothing else", async () => {
    const [wanted, orphan] = [rawDisk(), rawDisk()];
    const id = await storeImage(wanted);
    const crashed = await receive(orphan);
    await store.files.place(crashed);
    await store.files.discard(crashed.file);
    const [left, fresh] = [await receive(rawDisk()), await receive(rawDisk())];
    const twoHoursAgo = Date.now() / 1000 - 7200;
    await utimes(left.file, twoHoursAgo, twoHoursAgo);
    await writeFile(path.join(store.directory, "sha256", "README"), "not ours");

    expect(await sweepContents(deps())).toEqual({ contents: 1, incoming: 1 });
    expect(await store.allFiles()).toEqual(
      [contentFile(wanted), path.relative(store.directory, fresh.file), "sha256/README"].sort(),
    );
    expect(await sweepContents(deps())).toEqual({ contents: 0, incoming: 0 });
    await store.files.discard(fresh.file);
    await remove(id, sha256Of(wanted));
    await store.collector.stop();
  });
});

describe("an importing image", () => {
  async function importing(): Promise<ImageId> {
    const image = newImage();
    await database.db.transaction((tx) =>
      insertImportingImage(tx, { ...image, format: null, sourceUrl: "https://example.org/x" }),
    );
    return image.id;
  }

  it("uses its content from the moment it has it, and is ready only then", async () => {
    const bytes = rawDisk();
    const id = await importing();
    expect(await database.db.transaction((tx) => setImageReady(tx, id))).toBeNull();
    expect(await database.db.transaction((tx) => setArrivedContent(tx, id, facts(bytes)))).toBe(true);
    expect(await contentsInUse(database.db, [sha256Of(bytes)])).toEqual(new Set([sha256Of(bytes)]));
    const ready = await database.db.transaction((tx) => setImageReady(tx, id));
    expect(ready).toMatchObject({ state: "ready", format: "raw", content: facts(bytes) });
  });

  it("gives its content up when it fails, and fails once", async () => {
    const bytes = rawDisk();
    const id = await importing();
    await database.db.transaction((tx) => setArrivedContent(tx, id, facts(bytes)));
    const error = { code: "download_failed", message: "no", retry: "temporary" } as const;
    const failed = await database.db.transaction((tx) => setImageFailed(tx, id, error));
    expect(failed).toMatchObject({ state: "failed", error, content: null });
    expect(await database.db.transaction((tx) => setImageFailed(tx, id, error))).toBeNull();
    expect(await database.db.transaction((tx) => setArrivedContent(tx, id, facts(bytes)))).toBe(false);
    expect((await getImage(database.db, id))?.content).toBeNull();
  });
});

describe("an opened image", () => {
  it("gives its bytes and what is known of them", async () => {
    const bytes = rawDisk(5000);
    const id = await storeImage(bytes);
    const opened = await createImageContents(database.db, store.files).open(id);
    expect(opened).toMatchObject(facts(bytes));
    const parts: Uint8Array[] = [];
    for await (const part of opened.content) parts.push(part);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
  });

  it("gives a raw disk as it is where one is asked for", async () => {
    const bytes = rawDisk(5000);
    const contents = createImageContents(database.db, store.files);
    const opened = await contents.openRaw(await storeImage(bytes), new AbortController().signal);
    expect(opened.sizeBytes).toBe(bytes.length);
    const parts: Uint8Array[] = [];
    for await (const part of opened.content) parts.push(part);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
  });

  it("is refused where there is none, none yet, or its file is gone", async () => {
    const contents = createImageContents(database.db, store.files);
    await expect(contents.open(newId<ImageId>())).rejects.toMatchObject({ code: "not_found" });
    const image = newImage();
    await database.db.transaction((tx) =>
      insertImportingImage(tx, { ...image, format: null, sourceUrl: "https://x.org" }),
    );
    await expect(contents.open(image.id)).rejects.toMatchObject({ code: "image_not_ready" });
    const bytes = rawDisk();
    const id = await storeImage(bytes);
    await store.files.discard(store.files.withdraw(sha256Of(bytes)) ?? "");
    await expect(contents.open(id)).rejects.toMatchObject({ code: "internal", retry: "never" });
  });
});

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Tx } from "../../src/db/client.ts";
import { parseImportAllowList } from "../../src/images/address-guard.ts";
import { type ImportInput, imageImportKind } from "../../src/images/image-import.ts";
import { getImage, insertImportingImage } from "../../src/images/image-store.ts";
import { DroverError } from "../../src/lib/errors.ts";
import { type ImageId, newId, type OperationId, type ProjectId } from "../../src/lib/ids.ts";
import { Fenced } from "../../src/operations/operation-errors.ts";
import type { OperationKind, StepContext } from "../../src/operations/operation-kind.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import {
  contentFile,
  createImageStore,
  type ImageStore,
  rawDisk,
  sha256Of,
} from "../fixtures/image-parts.ts";

/** The step of an import at the instants where a worker may be killed, which a whole runner reaches only by luck. */

let database: TestDatabase;
let store: ImageStore;
let kind: OperationKind<ImportInput>;
let url = "";
let requests = 0;
const bytes = rawDisk();
const projectId = newId<ProjectId>();
const server = createServer((_request, response) => {
  requests++;
  response.end(bytes);
});

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/x`;
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "default" } });
  store = await createImageStore(database.db);
  kind = imageImportKind({
    files: store.files,
    limits: { maxBytes: 1e9, maxVirtualSizeBytes: 1e12 },
    qemuImg: null,
    allow: parseImportAllowList(["127.0.0.1"]),
    collect: store.collector.collect,
  });
});
afterAll(async () => {
  server.close();
  await store.remove();
  await database.drop();
});

type Transaction = StepContext<ImportInput>["transaction"];

/** What the step has at hand; its transactions are those of a worker that has the right, or lost it at some point. */
async function importing(transaction: Transaction = (work) => database.db.transaction(work)) {
  const id = newId<ImageId>();
  const image = {
    id,
    projectId,
    name: `i-${id}`,
    kind: "disk" as const,
    labels: {},
    format: null,
    sourceUrl: url,
  };
  await database.db.transaction((tx) => insertImportingImage(tx, image));
  const input: ImportInput = { imageId: id, kind: "disk", format: null, url, sha256: null };
  const operation = { id: newId<OperationId>(), kind: "image.import", projectId, input } as const;
  const { signal } = new AbortController();
  const call = { signal, timeoutMs: 1000, beforeSend: () => undefined };
  const progress = () => undefined;
  const read: StepContext<ImportInput>["read"] = (work) => work(database.db);
  return {
    id,
    context: {
      operation,
      signal,
      call,
      host: null,
      resumed: false,
      found: null,
      read,
      transaction,
      progress,
    },
  };
}

function download() {
  const [step] = kind.steps;
  if (step === undefined) throw new Error("the import has no step");
  return step;
}

it("fetches once, though it is killed between the content's commit and the step's record", async () => {
  const { id, context } = await importing();
  const before = requests;
  await download().run(context);
  expect((await getImage(database.db, id))?.content?.sha256).toBe(sha256Of(bytes));
  await download().run({ ...context, resumed: true });
  expect(requests).toBe(before + 1);
  await database.db.transaction(async (tx) => {
    await download().record?.(tx, context.operation, undefined);
  });
  expect(await getImage(database.db, id)).toMatchObject({ state: "ready" });
  expect(await store.allFiles()).toEqual([contentFile(bytes)]);
});

it("clears away what an attempt that was killed had received", async () => {
  const { id, context } = await importing();
  const source = (async function* () {
    yield bytes.subarray(0, 512);
  })();
  const options = { source, maxBytes: 1e9, announcedBytes: null, onHead: () => undefined };
  const left = await store.files.receive(`import-${id}`, options);
  expect(await store.allFiles()).toContain(`incoming/${left.file.split("/").at(-1) ?? ""}`);
  await download().run({ ...context, resumed: true });
  expect(await store.allFiles()).toEqual([contentFile(bytes)]);
});

it("leaves nothing when its worker lost the right before the commit", async () => {
  await database.db.image.deleteMany();
  store.collector.collect(sha256Of(bytes));
  await store.collector.stop();
  let transactions = 0;
  const fenced: Transaction = (work) =>
    database.db.transaction(async (tx: Tx) => {
      const outcome = await work(tx);
      transactions++;
      // The first only reads; the second would give the image its content.
      if (transactions === 2) throw new Fenced();
      return outcome;
    });
  const { id, context } = await importing(fenced);
  await expect(download().run(context)).rejects.toBeInstanceOf(Fenced);
  await store.collector.stop();
  expect(await getImage(database.db, id)).toMatchObject({ state: "importing", content: null });
  expect(await store.allFiles()).toEqual([]);
});

it("gives a content up when the import ends otherwise, and only then", async () => {
  const { id, context } = await importing();
  await download().run(context);
  await database.db.transaction(async (tx) => {
    const error = new DroverError("cancelled", "The operation was cancelled.");
    await kind.onEnd?.(tx, context.operation, { state: "cancelled", undone: true, error });
  });
  await store.collector.stop();
  expect(await getImage(database.db, id)).toMatchObject({ state: "failed", error: { code: "cancelled" } });
  expect(await store.allFiles()).toEqual([]);
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EventPage } from "../../openapi/sdk/index.ts";
import {
  createToken,
  createVm,
  deleteVm,
  listEvents,
  registerHost,
  revokeToken,
} from "../../openapi/sdk/index.ts";
import { newId, type ProjectId } from "../../src/lib/ids.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";

let api: TestApi;

beforeAll(async () => {
  api = await startApi();
  const body = { name: "quick", uri: "sim+kvm://quick?cpus=64&memoryGib=64" };
  await registerHost({ client: api.client, body, query: { wait: 60 } });
});

afterAll(async () => {
  await api.close();
});

let count = 0;

/** Creates and deletes a VM; returns its id. */
async function liveAndDie(): Promise<string> {
  const name = `vm-${++count}`;
  const spec = {
    cpu: { count: 1 },
    memoryMib: 64,
    disks: [{ name: "root", sizeGib: 1 }],
    runPolicy: "stopped" as const,
  };
  const { data, error } = await createVm({ client: api.client, body: { name, spec }, query: { wait: 60 } });
  expect(error).toBeUndefined();
  const gone = await deleteVm({ client: api.client, path: { vm: name }, query: { wait: 60 } });
  expect(gone.data?.operation.state).toBe("succeeded");
  return data?.vm.id ?? "";
}

async function page(query: NonNullable<Parameters<typeof listEvents>[0]>["query"]): Promise<EventPage> {
  const { data, error } = await listEvents({ client: api.client, query: { pageSize: 500, ...query } });
  expect(error).toBeUndefined();
  return data as EventPage;
}

describe("pages of events", () => {
  test("are gap-free and go on where the last ended", async () => {
    await liveAndDie();
    await expect
      .poll(async () => (await page({ type: ["vm"] })).items.length, { timeout: 30_000 })
      .toBeGreaterThan(1);
    const seqs: number[] = [];
    let after = "0";
    for (;;) {
      const next = await page({ after, pageSize: 3 });
      if (next.items.length === 0) {
        expect(next.nextAfter).toBe(after);
        break;
      }
      seqs.push(...next.items.map(({ seq }) => Number(seq)));
      after = next.nextAfter;
    }
    expect(seqs).toEqual(seqs.map((_seq, index) => (seqs[0] ?? 0) + index));
  });

  test("are filtered by type, subject, operation and project", async () => {
    const id = await liveAndDie();
    await expect
      .poll(async () => (await page({ subject: id })).items.at(-1)?.type, { timeout: 30_000 })
      .toBe("vm.deleted");
    const { items } = await page({ subject: id });
    expect(items.every(({ subject }) => subject.id === id)).toBe(true);
    const operation = items.find(({ operationId }) => operationId !== null)?.operationId ?? "";
    const ofOperation = await page({ operation });
    expect(ofOperation.items.length).toBeGreaterThan(0);
    expect(ofOperation.items.every(({ operationId }) => operationId === operation)).toBe(true);
    const types = (await page({ type: ["host", "vm.deleted"] })).items.map(({ type }) => type);
    expect(types.length).toBeGreaterThan(0);
    expect(types.every((type) => type.startsWith("host.") || type === "vm.deleted")).toBe(true);
    expect((await page({ project: "default", subject: id })).items).toEqual(items);
  });

  test("show a bound token its project only", async () => {
    await api.database.db.project.create({ data: { id: newId<ProjectId>(), name: "foreign" } });
    const { data } = await createToken({ client: api.client, body: { name: "foreign", project: "foreign" } });
    const seen = await listEvents({ client: api.clientFor(data?.secret ?? ""), query: { after: "0" } });
    expect((seen.data as EventPage).items).toEqual([]);
  });

  test.each(["after=x", "after=-1", "after=9999999999999999999", "type=a%20b", "subject=web-1", "limit=5"])(
    "refuse %s",
    async (query) => {
      expect((await api.fetch(`/v1/events?${query}`)).status).toBe(422);
    },
  );
});

interface Stream {
  readonly response: Response;
  /** The events so far. */
  readonly events: { id: string; type: string; data: Record<string, unknown> }[];
  readonly ended: Promise<void>;
  close(): void;
}

/** Reads a stream of events until it is closed, from either side. */
async function follow(
  target: TestApi,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Stream> {
  const client = new AbortController();
  const response = await target.fetch(path, {
    headers: { accept: "text/event-stream", ...headers },
    signal: client.signal,
  });
  const events: Stream["events"] = [];
  const ended = read(response, events).catch((error: unknown) => {
    if (!client.signal.aborted) throw error;
  });
  return {
    ...{ response, events, ended },
    close: () => {
      client.abort();
    },
  };
}

async function read(response: Response, events: Stream["events"]): Promise<void> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk as Uint8Array, { stream: true });
    for (let end = text.indexOf("\n\n"); end !== -1; end = text.indexOf("\n\n")) {
      const match = /^id: (\d+)\nevent: (\S+)\ndata: (.*)$/.exec(text.slice(0, end));
      text = text.slice(end + 2);
      if (match === null) continue;
      const [, id = "", type = "", data = ""] = match;
      events.push({ id, type, data: JSON.parse(data) as Record<string, unknown> });
    }
  }
}

describe("a stream of events", () => {
  test("brings what happens, as it happens, the same as the pages", async () => {
    const { nextAfter } = await page({});
    const stream = await follow(api, "/v1/events?type=vm");
    expect(stream.response.headers.get("content-type")).toContain("text/event-stream");
    const id = await liveAndDie();
    await expect.poll(() => stream.events.at(-1)?.type, { timeout: 30_000 }).toBe("vm.deleted");
    const { items } = await page({ after: nextAfter, type: ["vm"], subject: id });
    expect(stream.events.filter(({ data }) => (data["subject"] as { id: string }).id === id)).toEqual(
      items.map((item) => ({ id: item.seq, type: item.type, data: item })),
    );
    stream.close();
    await stream.ended;
  });

  test("goes on after Last-Event-ID, which goes before the query", async () => {
    const { items } = await page({});
    const last = items.at(-3)?.seq ?? "";
    const stream = await follow(api, "/v1/events?after=0", { "last-event-id": last });
    await expect.poll(() => stream.events.length, { timeout: 30_000 }).toBeGreaterThanOrEqual(2);
    expect(stream.events.slice(0, 2).map(({ id }) => id)).toEqual(items.slice(-2).map(({ seq }) => seq));
    stream.close();
    await stream.ended;
  });

  test("from somewhere that never was is refused", async () => {
    const response = await api.fetch("/v1/events", {
      headers: { accept: "text/event-stream", "last-event-id": "x" },
    });
    expect(response.status).toBe(422);
  });

  test("ends when its token is revoked", async () => {
    const { data } = await createToken({ client: api.client, body: { name: "brief" } });
    const stream = await follow(api, "/v1/events", { authorization: `Bearer ${data?.secret ?? ""}` });
    expect(stream.response.status).toBe(200);
    await revokeToken({ client: api.client, path: { token: "brief" } });
    await liveAndDie();
    await stream.ended;
    expect(stream.events).toEqual([]);
  });

  test("ends when the service drains", async () => {
    const other = await startApi();
    const stream = await follow(other, "/v1/events");
    const closed = other.close();
    await stream.ended;
    await closed;
  });
});

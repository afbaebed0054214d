import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  cancelOperation,
  createToken,
  createVm,
  deleteVm,
  getOperation,
  getVm,
  listOperations,
  registerHost,
  retryOperation,
  startVm,
  stopVm,
} from "../../openapi/sdk/index.ts";
import { newId, type OperationId, type ProjectId } from "../../src/lib/ids.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";

let api: TestApi;

beforeAll(async () => {
  api = await startApi();
  // Slow enough that an operation can be seen, and cancelled, while it runs.
  for (const [name, latency] of [
    ["quick", 0],
    ["slow", 1500],
  ] as const) {
    const uri = `sim+kvm://${name}?cpus=64&memoryGib=64&latencyMs=${latency}`;
    const { response, error } = await registerHost({
      client: api.client,
      body: { name, uri },
      query: { wait: 60 },
    });
    expect(error).toBeUndefined();
    expect(response?.status).toBe(202);
  }
});

afterAll(async () => {
  await api.close();
});

let count = 0;

async function newVm(host: string, wait: number) {
  const name = `vm-${++count}`;
  const body = {
    name,
    spec: {
      cpu: { count: 1 },
      memoryMib: 64,
      disks: [{ name: "root", sizeGib: 1 }],
      runPolicy: "stopped" as const,
      placement: { host },
    },
  };
  const { data, error, response } = await createVm({ client: api.client, body, query: { wait } });
  expect(error).toBeUndefined();
  expect(response?.headers.get("location")).toBe(`/v1/operations/${data?.operation.id ?? ""}`);
  return { name, id: data?.vm.id ?? "", operation: data?.operation };
}

async function ended(id: string) {
  for (let round = 0; round < 3; round++) {
    const { data } = await getOperation({ client: api.client, path: { operation: id }, query: { wait: 60 } });
    if (data !== undefined && data.endedAt !== null) return data;
  }
  throw new Error(`operation ${id} did not end`);
}

describe("an operation", () => {
  test("is shown step by step, and held until it ends", async () => {
    const { id, name, operation } = await newVm("quick", 0);
    const done = await ended(operation?.id ?? "");
    expect(done).toMatchObject({
      kind: "vm.create",
      state: "succeeded",
      targets: [{ kind: "vm", id, name }],
      hosts: ["quick"],
      actor: "token:admin",
      error: null,
      cancellable: false,
    });
    expect(done.progress.done).toBe(done.progress.total);
    expect(done.steps.length).toBeGreaterThan(1);
    expect(done.steps.every((step) => step.state === "succeeded")).toBe(true);
  });

  test("that is waited for is answered with its end and the VM as it then is", async () => {
    const { name } = await newVm("quick", 60);
    const { data, response } = await startVm({ client: api.client, path: { vm: name }, query: { wait: 60 } });
    expect(data?.operation.state).toBe("succeeded");
    expect(data?.vm.status.power).toBe("running");
    const { data: now, response: read } = await getVm({ client: api.client, path: { vm: name } });
    expect(response?.headers.get("etag")).toBe(read?.headers.get("etag"));
    expect(now?.spec.runPolicy).toBe("running");
  });

  test("that is not there, or has no id, is a 404", async () => {
    for (const operation of [newId(), "web-1", "x"]) {
      const { error } = await getOperation({ client: api.client, path: { operation } });
      expect(error?.code).toBe("not_found");
    }
  });

  test("of another project is not there for a bound token, and may not be cancelled", async () => {
    const projectId = newId<ProjectId>();
    await api.database.db.project.create({ data: { id: projectId, name: "foreign" } });
    const { data } = await createToken({ client: api.client, body: { name: "foreign", project: "foreign" } });
    const client = api.clientFor(data?.secret ?? "");
    const { operation } = await newVm("quick", 60);
    const path = { operation: operation?.id ?? "" };
    expect((await getOperation({ client, path })).error?.code).toBe("not_found");
    expect((await cancelOperation({ client, path })).error?.code).toBe("not_found");
    expect((await listOperations({ client })).data?.items).toEqual([]);
    const everything = await listOperations({ client, query: { project: "default" } });
    expect(everything.error?.code).toBe("forbidden");
  });
});

describe("cancelling", () => {
  test("an operation that runs ends it and undoes it; cancelling again changes nothing", async () => {
    const { name, operation } = await newVm("slow", 0);
    const path = { operation: operation?.id ?? "" };
    await expect
      .poll(async () => (await getOperation({ client: api.client, path })).data?.state, { timeout: 60_000 })
      .toBe("running");
    const { response, data } = await cancelOperation({ client: api.client, path, query: { wait: 60 } });
    expect(response?.status).toBe(202);
    expect(data?.operation.state).toBe("cancelled");
    expect(data?.operation.error?.code).toBe("cancelled");
    const again = await cancelOperation({ client: api.client, path });
    expect(again.data?.operation.state).toBe("cancelled");
    expect((await getVm({ client: api.client, path: { vm: name } })).data?.status.phase).not.toBe("ready");
  });

  test("or trying again an operation that has ended is refused", async () => {
    const { operation } = await newVm("quick", 60);
    const path = { operation: operation?.id ?? "" };
    expect((await cancelOperation({ client: api.client, path })).error?.code).toBe("invalid_state");
    expect((await retryOperation({ client: api.client, path })).error?.code).toBe("invalid_state");
  });
});

describe("trying again", () => {
  test("goes on with an operation that needs attention", async () => {
    const { id, operation } = await newVm("quick", 60);
    const operationId = operation?.id as OperationId;
    await api.database.db.operation.update({ where: { id: operationId }, data: { state: "attention" } });
    const path = { operation: operationId };
    const { data } = await retryOperation({ client: api.client, path, query: { wait: 60 } });
    expect(data?.operation.state).toBe("succeeded");
    expect((await getVm({ client: api.client, path: { vm: id } })).data?.status.phase).toBe("ready");
  });
});

describe("the list", () => {
  test("filters by state, kind, target, host and time", async () => {
    const since = new Date().toISOString();
    const { id, name } = await newVm("quick", 60);
    await startVm({ client: api.client, path: { vm: name }, query: { wait: 60 } });
    await stopVm({ client: api.client, path: { vm: name }, body: { mode: "force" }, query: { wait: 60 } });
    await deleteVm({ client: api.client, path: { vm: name }, query: { wait: 60 } });
    const kinds = async (query: NonNullable<Parameters<typeof listOperations>[0]>["query"]) => {
      const { data, error } = await listOperations({ client: api.client, query: { target: id, ...query } });
      expect(error).toBeUndefined();
      return data?.items.map((operation) => operation.kind);
    };
    const all = ["vm.delete", "vm.stop", "vm.start", "vm.create"];
    expect(await kinds({})).toEqual(all);
    expect(await kinds({ state: ["succeeded"], since })).toEqual(all);
    expect(await kinds({ state: ["failed", "running"] })).toEqual([]);
    expect(await kinds({ kind: ["vm.start", "vm.stop"] })).toEqual(["vm.stop", "vm.start"]);
    expect(await kinds({ host: "quick" })).toEqual(all);
    expect(await kinds({ host: "slow" })).toEqual([]);
    expect(await kinds({ since: "2100-01-01T00:00:00+01:00" })).toEqual([]);
    expect(await kinds({ project: "default" })).toEqual(all);
  });

  test("goes from the newest to the oldest in pages, each once", async () => {
    const ids: string[] = [];
    let pageToken: string | undefined;
    do {
      const query = { pageSize: 3, ...(pageToken === undefined ? {} : { pageToken }) };
      const { data, error } = await listOperations({ client: api.client, query });
      expect(error).toBeUndefined();
      ids.push(...(data?.items.map((operation) => operation.id) ?? []));
      pageToken = data?.nextPageToken;
    } while (pageToken !== undefined);
    const rows = await api.database.db.operation.findMany({
      orderBy: [{ createdAt: "desc" }, { id: "desc" }],
    });
    expect(ids).toEqual(rows.map(({ id }) => id));
    expect(ids.length).toBeGreaterThan(6);
  });

  test.each([
    "state=done",
    "kind=x",
    "target=web-1",
    "since=yesterday",
    "since=2026-02-30T00:00:00Z",
    "pageToken=x",
    "sort=1",
  ])("refuses %s", async (query) => {
    const response = await api.fetch(`/v1/operations?${query}`);
    expect(response.status).toBe(422);
    const problem = (await response.json()) as { violations: { pointer: string }[] };
    expect(problem.violations[0]?.pointer).toMatch(new RegExp(`^${query.split("=")[0] ?? ""}`));
  });
});

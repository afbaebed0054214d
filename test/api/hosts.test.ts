import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cordonHost,
  deleteHost,
  deleteVm,
  forgetHost,
  getHost,
  getOperation,
  getVm,
  listEvents,
  listHostDomains,
  listHostNetworks,
  listHostPools,
  listHosts,
  refreshHost,
  registerHost,
  stopVm,
  uncordonHost,
  updateHost,
} from "../../openapi/sdk/index.ts";
import {
  addHost,
  addVm,
  askForVm,
  ok,
  operationEnd,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
});
afterAll(async () => {
  await service.stop();
});

const uriOf = (name: string, parameters = "cpus=8&memoryGib=8"): string => `sim+kvm://${name}?${parameters}`;

async function hostNow(host: string) {
  return await ok(getHost({ client: service.client, path: { host } }));
}

function eventually(look: () => Promise<unknown>) {
  return expect.poll(look, { timeout: 30_000, interval: 100 });
}

async function rowsOf(table: "host" | "vm" | "operation" | "reservation" | "volume"): Promise<number> {
  const model = service.database.db[table] as { count(): Promise<number> };
  return await model.count();
}

describe("registering a host", () => {
  it("answers 202 with the host and its operation, which finds what the host has", async () => {
    const answer = await registerHost({
      client: service.client,
      body: { name: "fresh", uri: uriOf("fresh"), labels: { rack: "r1" } },
    });
    expect(answer.response?.status).toBe(202);
    const { host, operation } = await ok(Promise.resolve(answer));
    expect(answer.response?.headers.get("location")).toBe(`/v1/operations/${operation.id}`);
    expect(host).toMatchObject({ name: "fresh", labels: { rack: "r1" }, generation: 1 });
    const ended = await operationEnd(service, operation.id);
    expect(ended).toMatchObject({ kind: "host.register", state: "succeeded" });
    expect(ended.steps.map(({ name }) => name)).toEqual(["probe", "inventory"]);
    const ready = await hostNow("fresh");
    expect(ready.status).toMatchObject({
      state: "ready",
      error: null,
      driver: "sim",
      hypervisor: "kvm",
      allocatable: { cpuCount: 32, memoryMib: 8 * 1024 - 512 },
      reserved: { cpuCount: 0, memoryMib: 0 },
    });
    expect(ready.status.facts?.cpu.count).toBe(8);
    const path = { host: "fresh" };
    const networks = await ok(listHostNetworks({ client: service.client, path }));
    expect(networks.items).toMatchObject([{ name: "default", active: true, mode: "nat" }]);
    const pools = await ok(listHostPools({ client: service.client, path }));
    expect(pools.items).toMatchObject([{ name: "default", type: "dir" }]);
  });

  it.each([
    ["a URI of no driver", { name: "bad", uri: "vmware://x" }, "/uri"],
    ["a parameter that is not taken", { name: "bad", uri: "sim+kvm://bad?no_verify=1" }, "/uri"],
    ["a name that is none", { name: "Bad Name", uri: uriOf("bad") }, "/name"],
  ])("refuses %s, says where, and leaves nothing behind", async (_what, body, pointer) => {
    const before = [await rowsOf("host"), await rowsOf("operation")];
    const problem = await problemOf(registerHost({ client: service.client, body }));
    expect(problem).toMatchObject({ httpStatus: 422, code: "invalid_request", violations: [{ pointer }] });
    expect([await rowsOf("host"), await rowsOf("operation")]).toEqual(before);
  });

  it("refuses a taken name and the same machine under another name", async () => {
    await addHost(service, "twin", uriOf("twin"));
    const before = [await rowsOf("host"), await rowsOf("operation")];
    const named = await problemOf(
      registerHost({ client: service.client, body: { name: "twin", uri: uriOf("other") } }),
    );
    expect(named).toMatchObject({ httpStatus: 409, code: "name_taken" });
    const machine = await problemOf(
      registerHost({ client: service.client, body: { name: "twin-2", uri: uriOf("twin") } }),
    );
    expect(machine).toMatchObject({ httpStatus: 409, code: "already_exists" });
    expect(machine["detail"]).toContain('"twin"');
    expect([await rowsOf("host"), await rowsOf("operation")]).toEqual(before);
  });

  it("takes a host that does not answer, says why it is silent, and lets it be deleted with what waits", async () => {
    await service.sim.setHostDown("sim+kvm://silent", true);
    const { host, operation } = await ok(
      registerHost({ client: service.client, body: { name: "silent", uri: uriOf("silent") } }),
    );
    await eventually(async () => (await hostNow("silent")).status.state).toBe("unreachable");
    expect((await hostNow("silent")).status.error).toMatchObject({ code: "host_unreachable" });
    await eventually(
      async () =>
        (await ok(getOperation({ client: service.client, path: { operation: operation.id } }))).waitReason
          ?.code,
    ).toBe("host_unreachable");
    const gone = await deleteHost({ client: service.client, path: { host: "silent" } });
    expect(gone.response?.status).toBe(204);
    const ended = await operationEnd(service, operation.id);
    expect(ended).toMatchObject({ state: "cancelled", error: { code: "cancelled" } });
    expect(await service.database.db.host.count({ where: { id: host.id } })).toBe(0);
  });

  it("gives the same host again to a repeated request", async () => {
    const request = () =>
      registerHost({
        client: service.client,
        body: { name: "again", uri: uriOf("again") },
        headers: { "Idempotency-Key": "register-again" },
      });
    const first = await ok(request());
    const second = await request();
    expect(second.response?.headers.get("idempotency-replayed")).toBe("true");
    expect((await ok(Promise.resolve(second))).host.id).toBe(first.host.id);
  });
});

describe("a host's settings", () => {
  it("are patched under If-Match, and its credentials are never shown", async () => {
    const { generation } = await addHost(service, "patched", uriOf("patched"));
    const path = { host: "patched" };
    const stale = await problemOf(
      updateHost({
        client: service.client,
        path,
        headers: { "If-Match": '"99"' },
        body: { labels: { a: "1" } },
      }),
    );
    expect(stale).toMatchObject({ httpStatus: 412, code: "precondition_failed" });
    const secret = "-----BEGIN OPENSSH PRIVATE KEY-----";
    const answer = await updateHost({
      client: service.client,
      path,
      headers: { "If-Match": `"${generation}"` },
      body: {
        labels: { a: "1" },
        overcommit: { cpu: 1 },
        reserve: { memoryMib: 1024 },
        credentials: { ssh: { privateKey: secret } },
      },
    });
    const changed = await ok(Promise.resolve(answer));
    expect(changed.generation).toBe(generation + 1);
    expect(changed.status.allocatable).toEqual({ cpuCount: 8, memoryMib: 7 * 1024 });
    expect(JSON.stringify(changed)).not.toContain("PRIVATE");
    const row = await service.database.db.host.findUniqueOrThrow({ where: { name: "patched" } });
    expect(Buffer.from(row.credentials ?? []).toString()).not.toContain("PRIVATE");
    await eventually(async () => (await hostNow("patched")).status.state).toBe("ready");
    const removed = await ok(updateHost({ client: service.client, path, body: { labels: { a: null } } }));
    expect(removed.labels).toEqual({});
  });

  it("cordons, so that nothing new is placed there, and uncordons", async () => {
    const host = await addHost(service, "shut", uriOf("shut"));
    const path = { host: "shut" };
    const shut = await ok(cordonHost({ client: service.client, path }));
    expect(shut.spec.schedulable).toBe(false);
    expect(shut.generation).toBe(host.generation + 1);
    const problem = await problemOfVm("nowhere", "shut");
    expect(problem).toMatchObject({ code: "no_placement" });
    expect(problem["detail"]).toContain("shut: the host is cordoned");
    await ok(uncordonHost({ client: service.client, path }));
    await addVm(service, "somewhere", { placement: { host: "shut" } });
  });

  it("lists hosts by state and label, in pages", async () => {
    const { client } = service;
    const first = await ok(listHosts({ client, query: { pageSize: 1, state: "ready" } }));
    expect(first.items).toHaveLength(1);
    const rest = await ok(
      listHosts({ client, query: { pageSize: 100, state: "ready", pageToken: first.nextPageToken ?? "" } }),
    );
    expect(rest.items.map(({ name }) => name)).not.toContain(first.items[0]?.name);
    const labelled = await ok(listHosts({ client, query: { labelSelector: "rack=r1" } }));
    expect(labelled.items.map(({ name }) => name)).toEqual(["fresh"]);
  });
});

async function problemOfVm(name: string, host: string) {
  try {
    await askForVm(service, name, { placement: { host } });
  } catch (error) {
    const text = error instanceof Error ? error.message.replace("refused: ", "") : "";
    return JSON.parse(text) as Record<string, unknown>;
  }
  throw new Error("the VM was taken");
}

describe("what is on a host", () => {
  it("lists what is not ours as unmanaged, counts what it uses, and never touches it", async () => {
    const uri = uriOf("shared");
    await addHost(service, "shared", uri);
    const foreign = await service.sim.addForeignDomain(uri, { name: "theirs", memoryMib: 2048, cpuCount: 2 });
    const vm = await addVm(service, "mine", { placement: { host: "shared" } });
    await ok(refreshHost({ client: service.client, path: { host: "shared" }, query: { wait: 30 } }));
    const { items } = await ok(listHostDomains({ client: service.client, path: { host: "shared" } }));
    expect(items).toMatchObject([
      { uuid: vm.id, managed: true, vmId: vm.id, power: "running" },
      { uuid: foreign, name: "theirs", managed: false, vmId: null, power: "running" },
    ]);
    const host = await hostNow("shared");
    expect(host.status).toMatchObject({
      unmanaged: { cpuCount: 2, memoryMib: 2048 },
      allocatable: { memoryMib: 6 * 1024 },
      vmCount: 1,
    });
    const deleted = await ok(deleteVm({ client: service.client, path: { vm: "mine" }, query: { wait: 30 } }));
    expect(deleted.operation.state).toBe("succeeded");
    await ok(refreshHost({ client: service.client, path: { host: "shared" }, query: { wait: 30 } }));
    const left = await ok(listHostDomains({ client: service.client, path: { host: "shared" } }));
    expect(left.items).toMatchObject([{ uuid: foreign, power: "running" }]);
  });

  it("refuses to delete a host with VMs, and deletes it without", async () => {
    await addHost(service, "busy", uriOf("busy"));
    await addVm(service, "stays", { placement: { host: "busy" } });
    const path = { host: "busy" };
    const refused = await problemOf(deleteHost({ client: service.client, path }));
    expect(refused).toMatchObject({ httpStatus: 409, code: "in_use", retry: "afterStateChange" });
    expect(refused["detail"]).toContain("forget");
    await ok(deleteVm({ client: service.client, path: { vm: "stays" }, query: { wait: 30 } }));
    expect((await deleteHost({ client: service.client, path })).response?.status).toBe(204);
    expect((await getHost({ client: service.client, path })).response?.status).toBe(404);
  });
});

describe("a host that falls silent", () => {
  it("makes the power of its VMs unknown, never off, and tells of both; it comes back by itself", async () => {
    const uri = uriOf("flaky");
    const { id } = await addHost(service, "flaky", uri);
    const vm = await addVm(service, "on-flaky", { placement: { host: "flaky" } });
    const powerOf = async () => (await ok(getVm({ client: service.client, path: { vm: vm.id } }))).status;
    await service.sim.setHostDown(uri, true);
    await eventually(async () => (await powerOf()).power).toBe("unknown");
    const status = await powerOf();
    expect(status).toMatchObject({ powerReason: "hostUnreachable" });
    expect(status.conditions.map(({ type }) => type)).toContain("HostUnreachable");
    await service.sim.setHostDown(uri, false);
    await eventually(async () => (await powerOf()).power).toBe("running");
    expect((await powerOf()).conditions).toEqual([]);
    const events = async (subject: string) => {
      const page = await ok(listEvents({ client: service.client, query: { subject, pageSize: 500 } }));
      return page.items.map(({ type, data }) => [type, data["from"], data["to"]].filter(Boolean).join(" "));
    };
    await eventually(() => events(id)).toEqual(expect.arrayContaining(["host.ready", "host.unreachable"]));
    await eventually(() => events(vm.id)).toEqual(
      expect.arrayContaining(["vm.power.changed running unknown", "vm.power.changed unknown running"]),
    );
  });

  it("can be forgotten with its VMs when its name is confirmed; not while it answers", async () => {
    const uri = uriOf("doomed");
    await addHost(service, "doomed", uri);
    const vm = await addVm(service, "lost", { placement: { host: "doomed" } });
    const forget = (confirmName: string) =>
      forgetHost({ client: service.client, path: { host: "doomed" }, body: { confirmName } });
    expect(await problemOf(forget("doomed"))).toMatchObject({ httpStatus: 409, code: "invalid_state" });
    await service.sim.setHostDown(uri, true);
    await eventually(async () => (await hostNow("doomed")).status.state).toBe("unreachable");
    const stop = await ok(stopVm({ client: service.client, path: { vm: vm.id }, body: {} }));
    expect(await problemOf(forget("dooomed"))).toMatchObject({
      httpStatus: 422,
      violations: [{ pointer: "/confirmName" }],
    });
    expect((await forget("doomed")).response?.status).toBe(204);
    expect(await operationEnd(service, stop.operation.id)).toMatchObject({
      state: "failed",
      error: { code: "cancelled" },
    });
    expect((await getVm({ client: service.client, path: { vm: vm.id } })).response?.status).toBe(404);
    const { db } = service.database;
    expect(await db.reservation.count({ where: { vmId: vm.id } })).toBe(0);
    expect(await db.volume.count({ where: { vmId: vm.id } })).toBe(0);
    // Should it come back, what runs there is nobody's, and counts.
    await service.sim.setHostDown(uri, false);
    await addHost(service, "doomed-again", uri);
    const { items } = await ok(listHostDomains({ client: service.client, path: { host: "doomed-again" } }));
    expect(items).toMatchObject([{ uuid: vm.id, managed: false, vmId: null, power: "running" }]);
    expect((await hostNow("doomed-again")).status.unmanaged.memoryMib).toBe(256);
  });
});

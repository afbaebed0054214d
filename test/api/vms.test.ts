import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  getOperation,
  getVm,
  getVmConsoleLog,
  listVms,
  pauseVm,
  rebootVm,
  resetVm,
  restoreVm,
  resumeVm,
  saveVm,
  startVm,
  stopVm,
  updateHost,
  updateVm,
  type Vm,
} from "../../openapi/sdk/index.ts";
import { memoryWithOverhead } from "../../src/vms/placement.ts";
import {
  addHost,
  addVm,
  askForVm,
  clientOf,
  ok,
  operationEnd,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "big", "sim+kvm://big?cpus=64&memoryGib=256");
});
afterAll(async () => {
  await service.stop();
});

const SOME_TEXT: unknown = expect.any(String);
const ON_BIG = { placement: { host: "big" } } as const;

async function vmNow(vm: string): Promise<Vm> {
  return await ok(getVm({ client: service.client, path: { vm } }));
}

function eventually(look: () => Promise<unknown>) {
  return expect.poll(look, { timeout: 30_000, interval: 50 });
}

/** What a refused or failed create must not change. */
async function everything() {
  const { db } = service.database;
  return {
    vms: await db.vm.count(),
    reservations: await db.reservation.count(),
    operations: await db.operation.count(),
    volumes: await db.volume.count(),
    nics: await db.vmNic.count(),
  };
}

async function reservationOf(vmId: string) {
  return await service.database.db.reservation.findUnique({
    where: { vmId },
    select: { cpuCount: true, memoryMib: true },
  });
}

async function succeeds(
  answer: Promise<{ data?: { vm: Vm; operation: { id: string } } | undefined; error?: unknown }>,
): Promise<Vm> {
  const { vm, operation } = await ok(answer);
  const ended = await operationEnd(service, operation.id);
  expect(ended).toMatchObject({ state: "succeeded", error: null });
  return await vmNow(vm.id);
}

describe("creating a VM", () => {
  it("answers 202 with the VM as it stands and its operation, and makes it", async () => {
    const answer = await createVm({
      client: service.client,
      body: {
        name: "first",
        labels: { role: "web" },
        spec: {
          cpu: { count: 2 },
          memoryMib: 1024,
          disks: [{ name: "root", sizeGib: 1 }],
          nics: [{ name: "eth0", network: "default" }],
        },
      },
    });
    expect(answer.response?.status).toBe(202);
    const { vm, operation } = await ok(Promise.resolve(answer));
    expect(answer.response?.headers.get("location")).toBe(`/v1/operations/${operation.id}`);
    expect(answer.response?.headers.get("etag")).toBe('"1"');
    expect(vm.status).toMatchObject({ phase: "provisioning", power: "unknown", operations: [operation.id] });
    const ended = await operationEnd(service, operation.id);
    expect(ended).toMatchObject({ kind: "vm.create", state: "succeeded", hosts: ["big"] });
    const ready = await vmNow("first");
    expect(ready).toMatchObject({
      id: vm.id,
      labels: { role: "web" },
      spec: { runPolicy: "running", cpu: { count: 2 }, memoryMib: 1024, boot: { firmware: "bios" } },
      status: {
        phase: "ready",
        power: "running",
        host: "big",
        domainUuid: vm.id,
        domainName: `first-${vm.id.slice(-12)}`,
        hypervisor: "kvm",
        guestType: "hvm",
        observedGeneration: 1,
        conditions: [],
        operations: [],
      },
    });
    expect(ready.status.allowedActions).toEqual(["stop", "reboot", "reset", "pause", "save", "delete"]);
    expect(await reservationOf(vm.id)).toEqual({ cpuCount: 2, memoryMib: memoryWithOverhead(1024) });
  });

  it("tells in the result what was seen, and nothing of how it is kept", async () => {
    const { operation } = await askForVm(service, "resulting");
    const ended = await operationEnd(service, operation.id);
    expect(ended.result).toEqual({
      power: "running",
      reason: SOME_TEXT,
      agent: "disconnected",
      observedAt: SOME_TEXT,
    });
  });

  it("leaves it off with the run policy stopped", async () => {
    const vm = await addVm(service, "cold", { runPolicy: "stopped" });
    expect(vm.status).toMatchObject({ phase: "ready", power: "off", allowedActions: ["start", "delete"] });
  });

  it("takes a VM without disks that boots from the network", async () => {
    const vm = await addVm(service, "diskless", { disks: [], nics: [{ name: "eth0", network: "default" }] });
    expect(vm.status).toMatchObject({ phase: "ready", power: "running" });
    expect(await service.database.db.volume.count({ where: { vmId: vm.id } })).toBe(0);
  });

  it("holds the answer until it is done, with ?wait", async () => {
    const body = {
      name: "waited",
      spec: { cpu: { count: 1 }, memoryMib: 256, disks: [{ name: "a", sizeGib: 1 }] },
    };
    const { vm, operation } = await ok(createVm({ client: service.client, body, query: { wait: 60 } }));
    expect(operation.state).toBe("succeeded");
    expect(vm.status).toMatchObject({ phase: "ready", power: "running", operations: [] });
  });

  it("gives the same VM to a repeated request, and refuses the key for another", async () => {
    const request = (memoryMib: number) =>
      createVm({
        client: service.client,
        headers: { "Idempotency-Key": "create-once" },
        body: { name: "once", spec: { cpu: { count: 1 }, memoryMib, disks: [{ name: "a", sizeGib: 1 }] } },
      });
    const first = await ok(request(256));
    const again = await request(256);
    expect(again.response?.status).toBe(202);
    expect(again.response?.headers.get("idempotency-replayed")).toBe("true");
    const second = await ok(Promise.resolve(again));
    expect([second.vm.id, second.operation.id]).toEqual([first.vm.id, first.operation.id]);
    expect(await problemOf(request(512))).toMatchObject({ httpStatus: 422, code: "idempotency_key_reused" });
    expect(await service.database.db.vm.count({ where: { name: "once" } })).toBe(1);
  });

  it.each([
    ["an unknown image", { disks: [{ name: "root", image: "nope" }] }, "/spec/disks/0/image"],
    ["an unknown kernel", { boot: { kernel: "nope" }, disks: [] }, "/spec/boot/kernel"],
    ["an unknown host", { placement: { host: "nope" } }, "/spec/placement/host"],
    ["an empty disk without a size", { disks: [{ name: "root" }] }, "/spec/disks/0/sizeGib"],
    ["nothing to boot from", { disks: [] }, "/spec/disks"],
    [
      "a network to boot from where no BIOS is",
      { guestType: "pv" as const, disks: [], nics: [{ name: "e", network: "default" }] },
      "/spec/disks",
    ],
    [
      "two disks of one name",
      {
        disks: [
          { name: "a", sizeGib: 1 },
          { name: "a", sizeGib: 1 },
        ],
      },
      "/spec/disks",
    ],
    [
      "a multicast MAC address",
      { nics: [{ name: "e", network: "default", macAddress: "01:00:00:00:00:01" }] },
      "/spec/nics/0/macAddress",
    ],
    ["no CPUs", { cpu: { count: 0 } }, "/spec/cpu/count"],
  ])("refuses %s by its JSON pointer and leaves nothing behind", async (_what, spec, pointer) => {
    const before = await everything();
    const body = {
      name: "wrong",
      spec: { cpu: { count: 1 }, memoryMib: 256, disks: [{ name: "root", sizeGib: 1 }], ...spec },
    };
    const problem = await problemOf(createVm({ client: service.client, body }));
    expect(problem).toMatchObject({ httpStatus: 422, code: "invalid_request" });
    expect(problem["violations"]).toEqual(expect.arrayContaining([expect.objectContaining({ pointer })]));
    expect(await everything()).toEqual(before);
  });

  it("refuses a taken name, a taken MAC address and a missing token, and leaves nothing behind", async () => {
    const nics = [{ name: "e", network: "default", macAddress: "52:54:00:00:00:99" }];
    await addVm(service, "owner", { nics });
    const before = await everything();
    const spec = { cpu: { count: 1 }, memoryMib: 256, disks: [{ name: "root", sizeGib: 1 }] };
    const ask = (name: string, more: object, client = service.client) =>
      problemOf(createVm({ client, body: { name, spec: { ...spec, ...more } } }));
    expect(await ask("owner", {})).toMatchObject({ httpStatus: 409, code: "name_taken" });
    expect(await ask("thief", { nics })).toMatchObject({ httpStatus: 409, code: "already_exists" });
    expect(await ask("stranger", {}, clientOf(service.url, "wrong"))).toMatchObject({
      httpStatus: 401,
      code: "unauthenticated",
    });
    expect(await everything()).toEqual(before);
  });

  it("is refused with every host's reason when none has room, and keeps nothing", async () => {
    await addHost(service, "small", "sim+kvm://small?cpus=2&memoryGib=1");
    const before = await everything();
    const body = {
      name: "huge",
      spec: { cpu: { count: 1 }, memoryMib: 1024 * 1024, disks: [{ name: "root", sizeGib: 1 }] },
    };
    const problem = await problemOf(createVm({ client: service.client, body }));
    expect(problem).toMatchObject({ httpStatus: 409, code: "no_placement", retry: "afterCapacity" });
    expect(problem["details"]).toMatchObject({
      counts: { notEnoughMemory: 2 },
      hosts: [
        { host: "big", reason: "notEnoughMemory" },
        { host: "small", reason: "notEnoughMemory" },
      ],
    });
    expect(await everything()).toEqual(before);
  });

  it("takes everything back when it fails on the host, and says why", async () => {
    const uri = "sim+kvm://failing?cpus=4&memoryGib=4";
    await addHost(service, "failing", uri);
    await service.sim.failNextCalls(uri, "startDomain", 5);
    const { vm, operation } = await askForVm(service, "unlucky", { placement: { host: "failing" } });
    const ended = await operationEnd(service, operation.id);
    expect(ended).toMatchObject({ state: "failed", error: { code: "hypervisor_error" } });
    expect(ended.steps.map(({ name, state }) => `${name} ${state}`)).toEqual([
      "bring-boot-files succeeded",
      "create-disks undone",
      // It has no NIC in a network of the project.
      "prepare-networks succeeded",
      "define-domain undone",
      "start-domain undone",
    ]);
    const failed = await vmNow(vm.id);
    expect(failed.status.phase).toBe("failed");
    expect(failed.status.allowedActions).toContain("delete");
    expect(failed.status.conditions).toMatchObject([{ type: "OperationFailed", reason: "hypervisor_error" }]);
    // Whatever the steps recorded on the way: there is no domain that runs.
    await eventually(async () => (await vmNow(vm.id)).status.power).toBe("off");
    await succeedsDelete(vm.id);
  });
});

async function succeedsDelete(vm: string): Promise<void> {
  const { operation } = await ok(deleteVm({ client: service.client, path: { vm } }));
  expect(await operationEnd(service, operation.id)).toMatchObject({ state: "succeeded" });
  expect((await getVm({ client: service.client, path: { vm } })).response?.status).toBe(404);
}

describe("the verbs", () => {
  it("take a VM through its life", async () => {
    const { client } = service;
    const { id } = await addVm(service, "lively");
    const path = { vm: id };
    expect((await succeeds(pauseVm({ client, path }))).status.power).toBe("paused");
    expect((await succeeds(resumeVm({ client, path }))).status.power).toBe("running");
    expect((await succeeds(rebootVm({ client, path }))).status.power).toBe("running");
    expect((await succeeds(resetVm({ client, path }))).status.power).toBe("running");
    const stopped = await succeeds(stopVm({ client, path, body: {} }));
    expect(stopped).toMatchObject({ spec: { runPolicy: "stopped" }, status: { power: "off" } });
    const started = await succeeds(startVm({ client, path }));
    expect(started).toMatchObject({ spec: { runPolicy: "running" }, status: { power: "running" } });
    // A target already reached succeeds.
    expect((await succeeds(startVm({ client, path }))).status.power).toBe("running");
    expect((await succeeds(stopVm({ client, path, body: { mode: "force" } }))).status.power).toBe("off");
    const log = await getVmConsoleLog({ client, path, parseAs: "text" });
    expect(String(log.data)).toContain("boot");
    await succeedsDelete(id);
    const { db } = service.database;
    expect(await db.reservation.count({ where: { vmId: id } })).toBe(0);
    expect(await db.volume.count({ where: { vmId: id } })).toBe(0);
  });

  it("save a VM and bring it back as it was, by restore or by start", async () => {
    const { client } = service;
    const { id } = await addVm(service, "kept", ON_BIG);
    const path = { vm: id };
    const boots = async () => {
      const log = await getVmConsoleLog({ client, path, parseAs: "text" });
      return String(log.data).match(/DROVER-GUEST-UP/g)?.length;
    };
    const saved = await succeeds(saveVm({ client, path }));
    expect(saved).toMatchObject({ spec: { runPolicy: "stopped" }, status: { power: "saved" } });
    expect(saved.status.allowedActions).toEqual(["start", "restore", "delete"]);
    expect((await succeeds(saveVm({ client, path }))).status.power).toBe("saved");
    // A graceful stop leaves it: what it keeps is thrown away by force only.
    expect((await succeeds(stopVm({ client, path, body: {} }))).status.power).toBe("saved");
    const restored = await succeeds(restoreVm({ client, path }));
    expect(restored).toMatchObject({ spec: { runPolicy: "running" }, status: { power: "running" } });
    expect((await succeeds(restoreVm({ client, path }))).status.power).toBe("running");
    await succeeds(pauseVm({ client, path }));
    await succeeds(saveVm({ client, path }));
    expect((await succeeds(startVm({ client, path }))).status.power).toBe("running");
    expect(await boots()).toBe(1);
    await succeeds(saveVm({ client, path }));
    expect((await succeeds(stopVm({ client, path, body: { mode: "force" } }))).status.power).toBe("off");
    for (const refused of [saveVm, restoreVm]) {
      const { operation } = await ok(refused({ client, path }));
      expect(await operationEnd(service, operation.id)).toMatchObject({
        state: "failed",
        error: { code: "invalid_state" },
      });
    }
    await succeeds(startVm({ client, path }));
    expect(await boots()).toBe(2);
    await succeeds(saveVm({ client, path }));
    await succeedsDelete(id);
  });

  it("keep the size of a saved VM for when it comes back, whatever its spec says meanwhile", async () => {
    const { client } = service;
    const { id } = await addVm(service, "shrinking-asleep", ON_BIG);
    const path = { vm: id };
    const before = await reservationOf(id);
    await ok(updateVm({ client, path, body: { spec: { memoryMib: 128 } } }));
    await succeeds(saveVm({ client, path }));
    expect(await reservationOf(id)).toEqual(before);
    await ok(updateVm({ client, path, body: { spec: { memoryMib: 64 } } }));
    expect(await reservationOf(id)).toEqual(before);
    const restored = await succeeds(startVm({ client, path }));
    expect(restored.status.conditions.map(({ type }) => type)).toEqual(["RestartRequired"]);
    expect(await reservationOf(id)).toEqual(before);
    await succeeds(stopVm({ client, path, body: {} }));
    expect((await succeeds(startVm({ client, path }))).status.conditions).toEqual([]);
    expect((await reservationOf(id))?.memoryMib).toBe(memoryWithOverhead(64));
  });

  it("let a VM go on as it was when its save fails, and keep the memory when its restore does", async () => {
    const { client } = service;
    const uri = "sim+kvm://forgetful?cpus=4&memoryGib=4";
    await addHost(service, "forgetful", uri);
    const { id } = await addVm(service, "worried", { placement: { host: "forgetful" } });
    const path = { vm: id };
    // It takes effect, and nobody learns of it: what was saved is brought back.
    await service.sim.loseNextAnswers(uri, "saveDomain", 5);
    const failing = await ok(saveVm({ client, path }));
    expect(await operationEnd(service, failing.operation.id)).toMatchObject({ state: "failed" });
    await eventually(async () => (await vmNow(id)).status.power).toBe("running");
    await succeeds(saveVm({ client, path }));
    await service.sim.failNextCalls(uri, "startDomain", 5);
    const { operation } = await ok(restoreVm({ client, path }));
    expect(await operationEnd(service, operation.id)).toMatchObject({ state: "failed" });
    expect((await vmNow(id)).status.power).toBe("saved");
    expect((await succeeds(restoreVm({ client, path }))).status.power).toBe("running");
    const log = await getVmConsoleLog({ client, path, parseAs: "text" });
    expect(String(log.data).match(/DROVER-GUEST-UP/g)).toHaveLength(1);
  });

  it("are checked when their turn comes: start behind stop is fine, reboot of what is off is not", async () => {
    const { client } = service;
    const { id } = await addVm(service, "queued");
    const path = { vm: id };
    const stop = await ok(stopVm({ client, path, body: {} }));
    const start = await ok(startVm({ client, path }));
    expect(await operationEnd(service, stop.operation.id)).toMatchObject({ state: "succeeded" });
    expect(await operationEnd(service, start.operation.id)).toMatchObject({ state: "succeeded" });
    expect((await vmNow(id)).status.power).toBe("running");
    await succeeds(stopVm({ client, path, body: {} }));
    const reboot = await ok(rebootVm({ client, path }));
    expect(await operationEnd(service, reboot.operation.id)).toMatchObject({
      state: "failed",
      error: { code: "invalid_state", retry: "afterStateChange" },
    });
  });

  it("stop a guest that ignores the request by force, or end as guest_did_not_stop when told not to", async () => {
    const { client } = service;
    const { id } = await addVm(service, "deaf", ON_BIG);
    await service.sim.ignoreShutdown("sim+kvm://big", id);
    const path = { vm: id };
    const patient = { timeoutSeconds: 1, forceAfterTimeout: false };
    const asked = await ok(stopVm({ client, path, body: patient }));
    expect(await operationEnd(service, asked.operation.id)).toMatchObject({
      state: "failed",
      error: { code: "guest_did_not_stop" },
    });
    expect((await vmNow(id)).status.power).toBe("running");
    expect((await succeeds(stopVm({ client, path, body: { timeoutSeconds: 1 } }))).status.power).toBe("off");
  });

  it("are refused where the host cannot do them", async () => {
    await addHost(service, "xen", "sim+xen://xen?cpus=4&memoryGib=4");
    const kernelless = { hypervisor: "xen", guestType: "hvm" } as const;
    const { id } = await addVm(service, "fully", kernelless);
    await succeeds(resetVm({ client: service.client, path: { vm: id } }));
    const { db } = service.database;
    await db.vm.update({ where: { id }, data: { guestType: "pv" } });
    const problem = await problemOf(resetVm({ client: service.client, path: { vm: id } }));
    expect(problem).toMatchObject({ httpStatus: 409, code: "capability_unsupported" });
    await db.vm.update({ where: { id }, data: { guestType: "hvm" } });
  });

  it("are refused under a stale If-Match, DELETE too, and change nothing", async () => {
    const { client } = service;
    const { id, generation } = await addVm(service, "guarded");
    const path = { vm: id };
    const before = await everything();
    const headers = { "If-Match": `"${generation + 7}"` };
    for (const refused of [
      stopVm({ client, path, headers, body: {} }),
      deleteVm({ client, path, headers }),
      updateVm({ client, path, headers, body: { labels: { a: "b" } } }),
      updateVm({ client, path, headers, body: { spec: { runPolicy: "stopped" } } }),
    ])
      expect(await problemOf(refused)).toMatchObject({ httpStatus: 412, code: "precondition_failed" });
    expect(await everything()).toEqual(before);
    expect(await vmNow(id)).toMatchObject({ generation, spec: { runPolicy: "running" } });
    await succeeds(stopVm({ client, path, headers: { "If-Match": `"${generation}"` }, body: {} }));
  });
});

describe("changing a VM", () => {
  it("merges labels, and null removes one", async () => {
    const { client } = service;
    const { id } = await addVm(service, "labelled");
    const path = { vm: id };
    const first = await updateVm({ client, path, body: { labels: { a: "1", b: "2" } } });
    expect(first.response?.status).toBe(200);
    expect(first.response?.headers.get("etag")).toBe('"2"');
    await ok(updateVm({ client, path, body: { labels: { a: null } } }));
    const vm = await vmNow(id);
    expect(vm.labels).toEqual({ b: "2" });
    expect(vm.status.conditions).toEqual([]);
    const same = await ok(updateVm({ client, path, body: { labels: { b: "2" } } }));
    expect(same).toMatchObject({ generation: vm.generation });
    const listed = await ok(listVms({ client, query: { labelSelector: "b=2" } }));
    expect(listed.items.map(({ name }) => name)).toEqual(["labelled"]);
  });

  it("refuses disks and nics, which have paths of their own", async () => {
    const { client } = service;
    const { id } = await addVm(service, "disked");
    const body = { spec: { disks: [] } } as object;
    const problem = await problemOf(updateVm({ client, path: { vm: id }, body }));
    expect(problem).toMatchObject({ httpStatus: 422, code: "invalid_request" });
  });

  it("keeps a new size for the next start, with its condition, and applies it then", async () => {
    const { client } = service;
    const { id } = await addVm(service, "growing", { memoryMib: 512 });
    const path = { vm: id };
    const grown = await ok(
      updateVm({ client, path, body: { spec: { memoryMib: 2048, cpu: { count: 3 } } } }),
    );
    expect(grown).toMatchObject({ spec: { memoryMib: 2048, cpu: { count: 3 } } });
    const larger = { cpuCount: 3, memoryMib: memoryWithOverhead(2048) };
    expect(await reservationOf(id)).toEqual(larger);
    expect((await vmNow(id)).status.conditions).toMatchObject([{ type: "RestartRequired" }]);
    await succeeds(stopVm({ client, path, body: {} }));
    const restarted = await succeeds(startVm({ client, path }));
    expect(restarted.status.conditions).toEqual([]);
    expect(await reservationOf(id)).toEqual(larger);
  });

  it("keeps what a running VM has reserved until it has shrunk", async () => {
    const { client } = service;
    const { id } = await addVm(service, "shrinking", { memoryMib: 1024 });
    const path = { vm: id };
    await ok(updateVm({ client, path, body: { spec: { memoryMib: 256 } } }));
    expect((await reservationOf(id))?.memoryMib).toBe(memoryWithOverhead(1024));
    await succeeds(stopVm({ client, path, body: {} }));
    expect((await reservationOf(id))?.memoryMib).toBe(memoryWithOverhead(256));
    await ok(updateVm({ client, path, body: { spec: { memoryMib: 128 } } }));
    expect((await reservationOf(id))?.memoryMib).toBe(memoryWithOverhead(128));
  });

  it("is refused when the host has no room for it, and keeps what was", async () => {
    const { client } = service;
    await addHost(service, "tight", "sim+kvm://tight?cpus=2&memoryGib=1");
    const vm = await addVm(service, "tight-vm", { placement: { host: "tight" } });
    const body = { spec: { memoryMib: 4096 } };
    const problem = await problemOf(updateVm({ client, path: { vm: vm.id }, body }));
    expect(problem).toMatchObject({ httpStatus: 409, code: "no_placement" });
    expect(problem["detail"]).toContain("tight");
    expect(await vmNow(vm.id)).toMatchObject({ generation: vm.generation, spec: { memoryMib: 256 } });
    // A host that was filled beyond what it allows now refuses to give more, never to give back.
    await ok(updateHost({ client, path: { host: "tight" }, body: { reserve: { memoryMib: 1024 } } }));
    await ok(updateVm({ client, path: { vm: vm.id }, body: { spec: { memoryMib: 128 } } }));
  });

  it("turns a changed run policy into a start or stop, with 202", async () => {
    const { client } = service;
    const { id } = await addVm(service, "policed");
    const path = { vm: id };
    const answer = await updateVm({
      client,
      path,
      body: { labels: { x: "y" }, spec: { runPolicy: "stopped" } },
      query: { wait: 60 },
    });
    expect(answer.response?.status).toBe(202);
    const body = answer.data as unknown as { vm: Vm; operation: { kind: string; state: string } };
    expect(body.operation).toMatchObject({ kind: "vm.stop", state: "succeeded" });
    expect(body.vm).toMatchObject({ labels: { x: "y" }, status: { power: "off", conditions: [] } });
    const again = await updateVm({ client, path, body: { spec: { runPolicy: "stopped" } } });
    expect(again.response?.status).toBe(200);
  });
});

describe("overtaking", () => {
  it("lets a delete overtake a running create, and leaves nothing", async () => {
    const uri = "sim+kvm://slow?cpus=8&memoryGib=8&latencyMs=400";
    await addHost(service, "slow", uri);
    const create = await askForVm(service, "short-lived", { placement: { host: "slow" } });
    await eventually(
      async () =>
        (await ok(getOperation({ client: service.client, path: { operation: create.operation.id } }))).state,
    ).toBe("running");
    const path = { vm: create.vm.id };
    const removal = await ok(deleteVm({ client: service.client, path }));
    expect(removal.vm.status.phase).toBe("deleting");
    const joined = await ok(deleteVm({ client: service.client, path }));
    expect(joined.operation.id).toBe(removal.operation.id);
    expect(await problemOf(startVm({ client: service.client, path }))).toMatchObject({
      httpStatus: 409,
      code: "invalid_state",
    });
    expect(await operationEnd(service, create.operation.id)).toMatchObject({
      state: "cancelled",
      error: { code: "superseded" },
    });
    expect(await operationEnd(service, removal.operation.id)).toMatchObject({ state: "succeeded" });
    const { db } = service.database;
    expect(await db.vm.count({ where: { id: create.vm.id } })).toBe(0);
    expect(await db.reservation.count({ where: { vmId: create.vm.id } })).toBe(0);
    const domains = await db.$queryRaw<
      unknown[]
    >`SELECT 1 FROM sim.domain WHERE uuid = ${create.vm.id}::uuid`;
    const volumes = await db.$queryRaw<unknown[]>`
      SELECT 1 FROM sim.volume WHERE name LIKE ${`%${create.vm.id}%`}`;
    expect([domains, volumes]).toEqual([[], []]);
  });

  it("lets a forced stop overtake a graceful one that waits for its guest", async () => {
    const { client } = service;
    const { id } = await addVm(service, "stubborn", ON_BIG);
    await service.sim.ignoreShutdown("sim+kvm://big", id);
    const path = { vm: id };
    const graceful = await ok(stopVm({ client, path, body: { timeoutSeconds: 3600 } }));
    await eventually(
      async () => (await ok(getOperation({ client, path: { operation: graceful.operation.id } }))).state,
    ).toBe("running");
    expect((await succeeds(stopVm({ client, path, body: { mode: "force" } }))).status.power).toBe("off");
    expect(await operationEnd(service, graceful.operation.id)).toMatchObject({
      state: "cancelled",
      error: { code: "superseded" },
    });
  });
});

describe("a host that is down", () => {
  it("keeps a start and a delete waiting with their reason, and goes on when it is back", async () => {
    const { client } = service;
    const uri = "sim+kvm://sleepy?cpus=4&memoryGib=4";
    await addHost(service, "sleepy", uri);
    const placement = { host: "sleepy" };
    const first = await addVm(service, "woken", { placement, runPolicy: "stopped" });
    const second = await addVm(service, "removed", { placement });
    await service.sim.setHostDown(uri, true);
    await eventually(async () => (await vmNow(first.id)).status.power).toBe("unknown");
    const start = await ok(startVm({ client, path: { vm: first.id } }));
    const removal = await ok(deleteVm({ client, path: { vm: second.id } }));
    for (const { operation } of [start, removal])
      await eventually(async () => {
        const now = await ok(getOperation({ client, path: { operation: operation.id } }));
        return [now.state, now.waitReason?.code];
      }).toEqual(["pending", "host_unreachable"]);
    const refused = await problemOf(getVmConsoleLog({ client, path: { vm: first.id } }));
    expect(refused).toMatchObject({ httpStatus: 503, code: "host_unreachable", retry: "temporary" });
    await service.sim.setHostDown(uri, false);
    expect(await operationEnd(service, start.operation.id)).toMatchObject({ state: "succeeded" });
    expect(await operationEnd(service, removal.operation.id)).toMatchObject({ state: "succeeded" });
    expect((await vmNow(first.id)).status.power).toBe("running");
  });
});

describe("what happens behind Drover's back", () => {
  it("shows: a crash, a power-off, a domain that is gone, and that comes back by a start", async () => {
    const { client } = service;
    const { id } = await addVm(service, "watched", ON_BIG);
    await service.sim.crashDomain("sim+kvm://big", id);
    await eventually(async () => (await vmNow(id)).status.power).toBe("crashed");
    expect((await vmNow(id)).status.conditions).toMatchObject([{ type: "Crashed" }]);
    await succeeds(startVm({ client, path: { vm: id } }));
    await service.sim.setDomainPower("sim+kvm://big", id, "off");
    await eventually(async () => (await vmNow(id)).status.power).toBe("off");
    await service.sim.forgetDomain("sim+kvm://big", id);
    await eventually(async () => (await vmNow(id)).status.conditions.map(({ type }) => type)).toEqual([
      "DomainMissing",
    ]);
    const back = await succeeds(startVm({ client, path: { vm: id } }));
    expect(back.status).toMatchObject({ power: "running", conditions: [] });
  });
});

describe("listing VMs", () => {
  it("filters and pages by keyset", async () => {
    const { client } = service;
    const all: string[] = [];
    let pageToken: string | undefined;
    do {
      const query = {
        pageSize: 3,
        host: "big",
        orderBy: "name" as const,
        ...(pageToken === undefined ? {} : { pageToken }),
      };
      const page = await ok(listVms({ client, query }));
      all.push(...page.items.map(({ name }) => name));
      pageToken = page.nextPageToken ?? undefined;
    } while (pageToken !== undefined);
    expect(all).toEqual(all.toSorted());
    expect(new Set(all).size).toBe(await service.database.db.vm.count({ where: { host: { name: "big" } } }));
    const off = await ok(listVms({ client, query: { power: "off", pageSize: 100 } }));
    expect(off.items.every(({ status }) => status.power === "off")).toBe(true);
    expect(off.items.map(({ name }) => name)).toContain("cold");
  });
});

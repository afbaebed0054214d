import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  deleteVm,
  getHost,
  getVm,
  listHostDomains,
  pauseVm,
  rebootVm,
  refreshHost,
  stopVm,
} from "../../openapi/sdk/index.ts";
import { addHost, addVm, ok, operationEnd, startTestService, type TestService } from "../fixtures/service.ts";

// What is odd about Xen, as a simulated host plays it, and what must not be seen of it.

const URI = "sim+xen://odd?cpus=8&memoryGib=8";
/** Longer than an operation waits between two looks, shorter than what proves that a domain is gone. */
const GAP_MS = 2_500;

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "odd", URI);
});
afterAll(async () => {
  await service.stop();
});

const xen = { hypervisor: "xen", guestType: "hvm" } as const;

async function powersToldOf(vmId: string): Promise<(string | undefined)[]> {
  const where = { subjectId: vmId, type: "vm.power.changed" };
  const rows = await service.database.db.event.findMany({ where, orderBy: { rowId: "asc" } });
  return rows.map(({ data }) => (data as { to?: string }).to);
}

async function isSeen(vmId: string): Promise<boolean> {
  const { db } = service.database;
  return (await db.$queryRaw<unknown[]>`SELECT 1 FROM sim.domain_now WHERE uuid = ${vmId}::uuid`).length > 0;
}

async function ends(answer: Promise<{ data?: { operation: { id: string } } | undefined; error?: unknown }>) {
  const { operation } = await ok(answer);
  const ended = await operationEnd(service, operation.id);
  expect(ended).toMatchObject({ state: "succeeded", error: null });
  return ended;
}

describe("a reboot on Xen, whose domain is not seen for a moment", () => {
  it("that was asked for ends when the domain is seen again", async () => {
    const { id } = await addVm(service, "rebooted", xen);
    expect(await ends(rebootVm({ client: service.client, path: { vm: id } }))).toMatchObject({
      result: { power: "running" },
    });
    expect(await isSeen(id)).toBe(true);
    expect(await powersToldOf(id)).toEqual(["running"]);
  });

  it("switches nothing off, though inventories miss it", async () => {
    const { id } = await addVm(service, "restless", xen);
    await service.sim.rebootDomain(URI, id, GAP_MS);
    await ok(refreshHost({ client: service.client, path: { host: "odd" }, query: { wait: 30 } }));
    await expect.poll(() => isSeen(id), { timeout: 30_000 }).toBe(true);
    const vm = await ok(getVm({ client: service.client, path: { vm: id } }));
    expect(vm.status).toMatchObject({ power: "running", conditions: [] });
    expect(await powersToldOf(id)).toEqual(["running"]);
  });

  it.each([
    [
      "a graceful stop",
      "off",
      "shutdown",
      (vm: string) => stopVm({ client: service.client, path: { vm }, body: {} }),
    ],
    [
      "a forced stop",
      "off",
      "destroyed",
      (vm: string) => stopVm({ client: service.client, path: { vm }, body: { mode: "force" } }),
    ],
    ["a pause", "paused", "user", (vm: string) => pauseVm({ client: service.client, path: { vm } })],
  ] as const)("does not hide the VM from %s", async (what, power, powerReason, act) => {
    const { id } = await addVm(service, what.replaceAll(" ", "-"), xen);
    await service.sim.rebootDomain(URI, id, GAP_MS);
    await ends(act(id));
    const { status } = await ok(getVm({ client: service.client, path: { vm: id } }));
    expect(status).toMatchObject({ power, powerReason });
    const { db } = service.database;
    const rows = await db.$queryRaw`SELECT power FROM sim.domain WHERE uuid = ${id}::uuid`;
    expect(rows).toEqual([{ power }]);
  });

  it("does not hide the VM from its delete", async () => {
    const { id } = await addVm(service, "gone", xen);
    await service.sim.rebootDomain(URI, id, GAP_MS);
    await ends(deleteVm({ client: service.client, path: { vm: id } }));
    const { db } = service.database;
    expect(await db.$queryRaw`SELECT 1 FROM sim.domain WHERE uuid = ${id}::uuid`).toEqual([]);
  });
});

describe("Domain-0", () => {
  it("is listed as unmanaged, and its memory is not given to VMs", async () => {
    const { client } = service;
    const { items } = await ok(listHostDomains({ client, path: { host: "odd" } }));
    expect(items.find(({ name }) => name === "Domain-0")).toMatchObject({ managed: false, power: "running" });
    const { status } = await ok(getHost({ client, path: { host: "odd" } }));
    expect(status.unmanaged.memoryMib).toBe(512);
  });
});

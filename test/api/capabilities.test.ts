import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createVm,
  getCapabilities,
  getHost,
  getVmConsoleLog,
  resetVm,
  saveVm,
  updateVm,
} from "../../openapi/sdk/index.ts";
import { CAPABILITIES, GUEST_TYPES, HYPERVISORS } from "../../src/hypervisors/hypervisor.ts";
import { createDrivers } from "../../src/hypervisors/index.ts";
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
  const content = await fetch(`${service.url}/v1/images/kernel/content?kind=kernel`, {
    method: "PUT",
    headers: { authorization: `Bearer ${service.token}`, "content-type": "application/octet-stream" },
    body: Buffer.concat([Buffer.from("\x7fELF", "latin1"), Buffer.alloc(4096)]),
  });
  if (!content.ok) throw new Error(await content.text());
  await addHost(service, "kvm", "sim+kvm://kvm?cpus=16&memoryGib=16");
});
afterAll(async () => {
  await service.stop();
});

/** All that a refusal must leave as it was. */
async function everything() {
  const { db } = service.database;
  return {
    vms: await db.vm.findMany({ orderBy: { id: "asc" } }),
    operations: await db.operation.count(),
    reservations: await db.reservation.count(),
    events: await db.event.count(),
  };
}

describe("GET /v1/capabilities", () => {
  it("tells what every driver declares, for every guest type that it has, and what it means", async () => {
    const { capabilities, guestTypes } = await ok(getCapabilities({ client: service.client }));
    expect(capabilities.map(({ name }) => name)).toEqual(CAPABILITIES);
    for (const { description } of capabilities) expect(description).not.toBe("");
    const drivers = createDrivers({ databaseUrl: service.database.url });
    let rows = 0;
    for (const driver of drivers)
      for (const hypervisor of HYPERVISORS)
        for (const guestType of GUEST_TYPES) {
          const declared = driver.declares(hypervisor, guestType);
          const row = guestTypes.find(
            (one) =>
              one.driver === driver.name && one.hypervisor === hypervisor && one.guestType === guestType,
          );
          expect(new Set(row?.capabilities ?? [])).toEqual(declared);
          if (row === undefined) continue;
          expect(row.schemes).toEqual(driver.schemes);
          rows++;
        }
    expect(guestTypes).toHaveLength(rows);
  });

  it("needs a token", async () => {
    expect((await fetch(`${service.url}/v1/capabilities`)).status).toBe(401);
  });

  it("is what a host offers at best, by guest type", async () => {
    await addHost(service, "xen", "sim+xen://xen?cpus=16&memoryGib=16");
    const { guestTypes } = await ok(getCapabilities({ client: service.client }));
    for (const host of ["kvm", "xen"]) {
      const { status } = await ok(getHost({ client: service.client, path: { host } }));
      expect(status.facts?.guestTypes.length).toBeGreaterThan(0);
      for (const { guestType, capabilities } of status.facts?.guestTypes ?? []) {
        const row = guestTypes.find(
          (one) =>
            one.driver === status.driver &&
            one.hypervisor === status.hypervisor &&
            one.guestType === guestType,
        );
        expect(row?.capabilities).toEqual(expect.arrayContaining(capabilities));
      }
    }
  });
});

describe("booting a disk", () => {
  it("boots pv and pvh guests that give no kernel by pvgrub, and leaves others to a BIOS", async () => {
    await addHost(service, "grub", "sim+xen://grub?cpus=16&memoryGib=16");
    const onXen = { placement: { host: "grub" } };
    for (const guestType of ["pv", "pvh"] as const) {
      const { spec, status } = await addVm(service, `by-grub-${guestType}`, { ...onXen, guestType });
      expect(spec.boot).toEqual({ firmware: "pvgrub" });
      expect(status).toMatchObject({ power: "running", guestType });
    }
    const said = await addVm(service, "by-grub", { ...onXen, boot: { firmware: "pvgrub" } });
    expect(said.status).toMatchObject({ power: "running", guestType: "pv" });
    const unsaid = await addVm(service, "by-bios", onXen);
    expect(unsaid.spec.boot).toEqual({ firmware: "bios" });
    expect(unsaid.status).toMatchObject({ power: "running", guestType: "hvm" });
  });
});

describe("what cannot be done", () => {
  it.each([
    ["a guest type that its hypervisor does not have", { hypervisor: "kvm", guestType: "pv" }, "xen pv"],
    ["a BIOS for a guest without one", { guestType: "pv", boot: { firmware: "bios" } }, "xen hvm"],
    ["GRUB for Xen for a guest with a BIOS", { guestType: "hvm", boot: { firmware: "pvgrub" } }, "xen pvh"],
    ["the same on KVM", { hypervisor: "kvm", boot: { firmware: "pvgrub" } }, "xen pv"],
  ] as const)("is refused to a create before anything is touched: %s", async (_what, spec, able) => {
    const before = await everything();
    const disks = [{ name: "root", sizeGib: 1 }];
    const body = { name: "wish", spec: { cpu: { count: 1 }, memoryMib: 256, disks, ...spec } };
    const problem = await problemOf(createVm({ client: service.client, body }));
    expect(problem).toMatchObject({ httpStatus: 409, code: "capability_unsupported" });
    expect(problem["details"]).toMatchObject({
      offeredBy: expect.arrayContaining([able]) as unknown,
    });
    expect(await everything()).toEqual(before);
  });

  it("is no_placement where only no host has it now", async () => {
    const before = await everything();
    const disks = [{ name: "root", sizeGib: 1 }];
    const placement = { host: "kvm" };
    const spec = { cpu: { count: 1 }, memoryMib: 256, disks, placement, hypervisor: "xen" as const };
    const problem = await problemOf(createVm({ client: service.client, body: { name: "wish", spec } }));
    expect(problem).toMatchObject({ httpStatus: 409, code: "no_placement" });
    expect(await everything()).toEqual(before);
  });

  it("is refused to an action on a VM whose create is still queued or under way", async () => {
    const { client } = service;
    await addHost(service, "slow", "sim+xen://slow?cpus=4&memoryGib=4&latencyMs=300");
    const { vm, operation } = await askForVm(service, "young", {
      ...{ hypervisor: "xen", guestType: "pv", boot: { kernel: "kernel" } },
      placement: { host: "slow" },
    });
    const before = await everything();
    const path = { vm: vm.id };
    expect(await problemOf(resetVm({ client, path }))).toMatchObject({
      httpStatus: 409,
      code: "capability_unsupported",
      details: { capability: "reset" },
    });
    expect(before.operations).toBe((await everything()).operations);
    expect(await operationEnd(service, operation.id)).toMatchObject({ state: "succeeded" });
    expect(await problemOf(resetVm({ client, path }))).toMatchObject({ code: "capability_unsupported" });
  });

  it("is refused to every verb, a changed run policy and the console log, by the host's own list", async () => {
    const { client } = service;
    const { db } = service.database;
    const { id } = await addVm(service, "lame", { placement: { host: "kvm" } });
    const path = { vm: id };
    await db.vm.update({ where: { id }, data: { guestType: "pvh" } });
    const row = await db.host.findFirstOrThrow({ where: { name: "kvm" } });
    // As though the host's probe had found a guest type that can do nothing.
    const lamed = { ...(row.facts as object), guestTypes: [{ guestType: "pvh", capabilities: [] }] };
    await db.host.update({ where: { id: row.id }, data: { facts: lamed } });
    const before = await everything();
    const verbs = ["start", "stop", "reboot", "reset", "pause", "resume", "save", "restore"];
    const answers = await Promise.all(
      verbs.map((verb) =>
        fetch(`${service.url}/v1/vms/${id}/${verb}`, {
          method: "POST",
          headers: { authorization: `Bearer ${service.token}` },
        }),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(verbs.map(() => 409));
    const refused = [
      saveVm({ client, path }),
      updateVm({ client, path, body: { spec: { runPolicy: "stopped" } } }),
      getVmConsoleLog({ client, path }),
    ];
    for (const answer of refused)
      expect(await problemOf(answer)).toMatchObject({ httpStatus: 409, code: "capability_unsupported" });
    expect(await everything()).toEqual(before);
    await db.host.update({ where: { id: row.id }, data: { facts: row.facts as object } });
    await db.vm.update({ where: { id }, data: { guestType: "hvm" } });
  });
});

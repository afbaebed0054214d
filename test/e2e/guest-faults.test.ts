import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { getVmConsoleLog, listHostDomains } from "../../openapi/sdk/index.ts";
import { domainOf, FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// Guests that something happens to while nobody asked for it, on a real host. The next inventory is an hour away: what
// is seen here is seen by events.

vi.setConfig({ testTimeout: 300_000 });

let service: TestService;
let host: KvmHost;
let scene: FaultScene;

beforeAll(async () => {
  [service, host] = await Promise.all([
    startTestService({ DROVER_INVENTORY_SECONDS: "3600" }),
    startKvmHost(),
  ]);
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
}, 180_000);

afterAll(async () => {
  await service.stop();
  await host.stop();
}, 120_000);

it("shows a QEMU that was killed as crashed, by the event alone", async () => {
  const vm = await scene.addVm("killed", "local");
  const inventories = (await scene.host("local")).status.inventorySeq;
  const told = await scene.toldPowers(vm);
  process.kill(host.qemuPid(domainOf(vm)), "SIGKILL");
  const { status } = await scene.untilVm("killed", { power: "crashed", powerReason: "crashed" });
  expect(status).toMatchObject({ phase: "ready", conditions: [{ type: "Crashed", reason: "crashed" }] });
  expect(status.conditions[0]?.message).toMatch(/start it again/);
  await scene.untilTold(vm, told, ["crashed: crashed"]);
  await scene.do("killed", "start");
  expect((await scene.vm("killed")).status).toMatchObject({ power: "running", conditions: [] });
  expect((await scene.host("local")).status.inventorySeq).toBe(inventories);
  await scene.do("killed", "delete");
});

describe("behind our back", () => {
  it("a guest is destroyed, started, suspended and resumed", async () => {
    const vm = await scene.addVm("moved", "local");
    const inventories = (await scene.host("local")).status.inventorySeq;
    const told = await scene.toldPowers(vm);
    const powers: string[] = [];
    const steps = [
      ["destroy", "off", "destroyed"],
      ["start", "running", "booted"],
      ["suspend", "paused", "user"],
      ["resume", "running", "unpaused"],
    ] as const;
    for (const [verb, power, powerReason] of steps) {
      await host.virsh([verb, domainOf(vm)]);
      await scene.untilVm("moved", { phase: "ready", power, powerReason, conditions: [] });
      powers.push(`${power}: ${powerReason}`);
    }
    await scene.untilTold(vm, told, powers);
    expect((await scene.host("local")).status.inventorySeq).toBe(inventories);
    await scene.do("moved", "delete");
  });

  it("a guest is shut down", async () => {
    await uploadGuest(scene.client);
    const vm = await scene.addVm("obedient", "local", { memoryMib: 192, boot: GUEST_BOOT });
    const path = { vm: "obedient" };
    const readLog = async () => (await getVmConsoleLog({ client: scene.client, path, parseAs: "text" })).data;
    await expect.poll(readLog, PATIENCE).toContain("DROVER-GUEST-UP");
    // A guest that is still booting misses the request.
    const shutDown = async () => {
      const { status } = await scene.vm("obedient");
      if (status.power === "running") await host.virsh(["shutdown", domainOf(vm)]).catch(() => undefined);
      return status;
    };
    const isOff = { phase: "ready", power: "off", powerReason: "shutdown", conditions: [] };
    await expect.poll(shutDown, { ...PATIENCE, interval: 1_000 }).toMatchObject(isOff);
    await scene.do("obedient", "delete");
  });

  it("a domain is undefined, defined again, and undefined for good", async () => {
    const vm = await scene.addVm("undefined", "local");
    const xml = join(host.dir, "undefined.xml");
    writeFileSync(xml, await host.virsh(["dumpxml", "--inactive", domainOf(vm)]));
    const isMissing = { phase: "ready", power: "off", powerReason: "domainMissing" };
    const missing = { ...isMissing, conditions: [{ type: "DomainMissing" }] };

    await host.virsh(["destroy", domainOf(vm)]);
    await host.virsh(["undefine", domainOf(vm)]);
    const { status } = await scene.untilVm("undefined", missing);
    expect(status.conditions[0]?.message).toMatch(/Start it to define it again, or delete it/);

    await host.virsh(["define", xml]);
    await scene.untilVm("undefined", { phase: "ready", power: "off", conditions: [] });

    // One that runs lives on without a definition, and is gone with its end.
    await host.virsh(["start", domainOf(vm)]);
    await scene.untilVm("undefined", { power: "running" });
    await host.virsh(["undefine", domainOf(vm)]);
    await host.virsh(["destroy", domainOf(vm)]);
    await scene.untilVm("undefined", missing);
    await scene.do("undefined", "start");
    await scene.untilVm("undefined", { phase: "ready", power: "running", conditions: [] });
    expect(await host.virsh(["domstate", domainOf(vm)])).toBe("running");

    await host.virsh(["destroy", domainOf(vm)]);
    await host.virsh(["undefine", domainOf(vm)]);
    await scene.untilVm("undefined", missing);
    await scene.do("undefined", "delete");
    expect(await host.exec("ls", ["/var/lib/libvirt/images"])).not.toContain(vm.id);
  });

  it("a domain of somebody else's is defined, started, defined anew and undefined", async () => {
    const xml = join(host.dir, "stranger.xml");
    const write = (memoryMib: number): void => {
      const os = '<os><type arch="x86_64" machine="q35">hvm</type></os>';
      const memory = `<memory unit="MiB">${memoryMib}</memory>`;
      writeFileSync(
        xml,
        `<domain type="qemu"><name>stranger</name><uuid>${uuid}</uuid>${memory}${os}</domain>`,
      );
    };
    const uuid = randomUUID();
    const strangers = async () => {
      const { items } = await ok(listHostDomains({ client: scene.client, path: { host: "local" } }));
      return items.filter(({ name }) => name === "stranger");
    };
    write(64);
    await host.virsh(["define", xml]);
    await expect.poll(strangers, PATIENCE).toMatchObject([{ power: "off", managed: false, memoryMib: 64 }]);
    await host.virsh(["start", "stranger"]);
    await expect.poll(strangers, PATIENCE).toMatchObject([{ power: "running", managed: false }]);
    await host.virsh(["destroy", "stranger"]);
    write(96);
    await host.virsh(["define", xml]);
    await expect.poll(strangers, PATIENCE).toMatchObject([{ power: "off", managed: false, memoryMib: 96 }]);
    await host.virsh(["undefine", "stranger"]);
    await expect.poll(strangers, PATIENCE).toEqual([]);
  });
});

describe("a QEMU that hangs", () => {
  it("holds up nothing but its own operations, and those go on when it does", async () => {
    const [stuck] = await Promise.all([scene.addVm("stuck", "local"), scene.addVm("free", "local")]);
    const pid = host.qemuPid(domainOf(stuck));
    process.kill(pid, "SIGSTOP");
    const held = await scene.ask("stuck", "pause");
    await scene.do("free", "pause");
    await scene.do("free", "resume");
    await scene.do("free", "force-off");
    await scene.do("free", "start");
    const other = await scene.vm("free");
    await host.virsh(["destroy", domainOf(other)]);
    await scene.untilVm("free", { power: "off", powerReason: "destroyed" });
    await scene.do("free", "delete");
    expect(await scene.operation(held)).toMatchObject({ state: "running", error: null });
    process.kill(pid, "SIGCONT");
    expect(await scene.end(held)).toMatchObject({ state: "succeeded" });
    await scene.untilVm("stuck", { power: "paused" });
  });

  it("is cut off by a forced stop, which overtakes what hangs", async () => {
    await scene.do("stuck", "resume");
    const stuck = await scene.vm("stuck");
    process.kill(host.qemuPid(domainOf(stuck)), "SIGSTOP");
    const held = await scene.ask("stuck", "pause");
    await expect.poll(async () => (await scene.operation(held)).state, PATIENCE).toBe("running");
    await scene.do("stuck", "force-off");
    expect(await scene.end(held)).toMatchObject({ state: "cancelled" });
    await scene.untilVm("stuck", { power: "off" });
    await scene.do("stuck", "delete");
  });
});

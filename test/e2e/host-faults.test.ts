import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { listVolumes, type Operation, uploadImage, type Vm } from "../../openapi/sdk/index.ts";
import { domainOf, FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// A libvirtd that hangs, dies, and comes back, beside another that works. The next inventory of a host that answers is an
// hour away.

vi.setConfig({ testTimeout: 300_000 });

const IMAGE_BYTES = 64 * 1024 * 1024;
const SILENT = { power: "unknown", powerReason: "hostUnreachable", phase: "ready" };

let service: TestService;
let shaky: KvmHost;
let steady: KvmHost;
let scene: FaultScene;

beforeAll(async () => {
  [service, shaky, steady] = await Promise.all([
    startTestService({ DROVER_INVENTORY_SECONDS: "3600" }),
    startKvmHost(),
    startKvmHost(),
  ]);
  scene = new FaultScene(service.client);
  await Promise.all([scene.addHost("shaky", shaky), scene.addHost("steady", steady)]);
}, 180_000);

afterAll(async () => {
  await service.stop();
  await Promise.all([shaky.stop(), steady.stop()]);
}, 120_000);

/** Waits until the shaky host counts as unreachable, with an error that says what to do. */
async function untilUnreachable(advice: RegExp): Promise<void> {
  const { status } = await scene.untilHost("shaky", { state: "unreachable" });
  expect(status.error).toMatchObject({ code: "host_unreachable", retry: "temporary" });
  expect(status.error?.message).toMatch(advice);
}

/** Waits until an operation says that it waits for its host. */
async function untilWaiting(operation: Pick<Operation, "id">): Promise<void> {
  await expect
    .poll(() => scene.operation(operation), PATIENCE)
    .toMatchObject({ endedAt: null, waitReason: { code: "host_unreachable" } });
}

/** Everything that was told of the VM's power since `before`. */
async function toldSince(vm: Vm, before: readonly string[]): Promise<string[]> {
  return (await scene.toldPowers(vm)).slice(before.length);
}

/** Stops and starts a VM, and pauses and resumes it. */
async function operate(vm: string): Promise<void> {
  for (const action of ["force-off", "start", "pause", "resume"] as const) await scene.do(vm, action);
}

function copiesOfImages(): string[] {
  return readdirSync(shaky.poolDir).filter((name) => name.startsWith("drover-image-"));
}

function filesOfVms(): string[] {
  const copies = copiesOfImages();
  return readdirSync(shaky.poolDir)
    .filter((name) => !copies.includes(name))
    .sort();
}

describe("a libvirtd that hangs", () => {
  it("makes its host unreachable and its guests unknown, and holds up no other host", async () => {
    const [held, waiting] = [await scene.addVm("held", "shaky"), await scene.addVm("waiting", "shaky")];
    await scene.addVm("elsewhere", "steady");
    const [toldOfHeld, toldOfWaiting] = [await scene.toldPowers(held), await scene.toldPowers(waiting)];
    shaky.pauseLibvirtd();
    const underWay = await scene.ask("held", "pause");
    await operate("elsewhere");
    await untilUnreachable(/See whether libvirtd on the host hangs/);
    for (const vm of ["held", "waiting"]) {
      const { status } = await scene.untilVm(vm, { ...SILENT, conditions: [{ type: "HostUnreachable" }] });
      expect(status.conditions[0]?.message).toMatch(/Host "shaky" does not answer: .*libvirtd/);
    }
    const queued = await scene.ask("waiting", "force-off");
    await operate("elsewhere");
    await Promise.all([untilWaiting(underWay), untilWaiting(queued)]);
    await scene.untilTold(held, toldOfHeld, ["unknown: hostUnreachable"]);

    shaky.continueLibvirtd();
    expect(await scene.end(underWay)).toMatchObject({ state: "succeeded", waitReason: null });
    expect(await scene.end(queued)).toMatchObject({ state: "succeeded", waitReason: null });
    await scene.untilHost("shaky", { state: "ready", error: null });
    await scene.untilVm("held", { power: "paused", conditions: [] });
    await scene.untilVm("waiting", { power: "off", powerReason: "destroyed", conditions: [] });
    const told = [...(await toldSince(held, toldOfHeld)), ...(await toldSince(waiting, toldOfWaiting))];
    expect(told.filter((power) => /^(off|crashed)/.test(power))).toEqual(["off: destroyed"]);
    await Promise.all(["held", "waiting", "elsewhere"].map((vm) => scene.do(vm, "delete")));
  });
});

describe("a libvirtd that is killed and started again", () => {
  it("leaves its guests running and known, and tells events again", async () => {
    const [vm, lost] = [await scene.addVm("survivor", "shaky"), await scene.addVm("lost", "shaky")];
    const told = await scene.toldPowers(vm);
    const pid = shaky.qemuPid(domainOf(vm));
    await shaky.stopLibvirtd("SIGKILL");
    await untilUnreachable(/See that libvirtd runs on the host/);
    await scene.untilVm("survivor", SILENT);
    process.kill(shaky.qemuPid(domainOf(lost)), "SIGKILL");
    await shaky.startLibvirtd();
    const { status } = await scene.untilHost("shaky", { state: "ready", error: null });
    await scene.untilVm("survivor", { power: "running", conditions: [] });
    expect(shaky.qemuPid(domainOf(vm))).toBe(pid);
    await scene.untilTold(vm, told, ["unknown: hostUnreachable", "running: booted"]);
    await scene.untilVm("lost", { power: "crashed", conditions: [{ type: "Crashed" }] });

    await shaky.virsh(["destroy", domainOf(vm)]);
    await scene.untilVm("survivor", { power: "off", powerReason: "destroyed" });
    await shaky.virsh(["start", domainOf(vm)]);
    await scene.untilVm("survivor", { power: "running" });
    expect((await scene.host("shaky")).status.inventorySeq).toBe(status.inventorySeq);
    await Promise.all(["survivor", "lost"].map((name) => scene.do(name, "delete")));
  });

  it("in the middle of a create loses and doubles nothing", async () => {
    const body = new Blob([Buffer.alloc(IMAGE_BYTES, 1)]);
    await ok(uploadImage({ client: scene.client, path: { image: "large" }, query: { kind: "disk" }, body }));
    const { vm, operation } = await ok(
      scene.askForVm("halfway", "shaky", { disks: [{ name: "root", image: "large" }] }),
    );
    const { items } = await ok(listVolumes({ client: scene.client, query: { vm: vm.id } }));
    const name = items[0]?.nameInPool ?? "";
    expect(name).toMatch(new RegExp(`^drover-[0-9a-f]{12}-${vm.id}-disk-root\\.raw$`));
    // The image comes to the host once; the disk is made of what is there then.
    const written = (): number => {
      const [copy = name] = copiesOfImages();
      return (statSync(join(shaky.poolDir, copy), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
    };
    await expect.poll(written, { ...PATIENCE, interval: 1 }).toBeGreaterThan(0);
    await shaky.stopLibvirtd("SIGKILL");
    expect(written()).toBeLessThan(IMAGE_BYTES);
    // The create waits behind what brings the image.
    const [bring = ""] = (await scene.operation(operation)).blockedBy;
    await untilWaiting({ id: bring });
    await shaky.startLibvirtd();
    expect(await scene.end(operation)).toMatchObject({ state: "succeeded" });
    await scene.untilVm("halfway", { phase: "ready", power: "running", conditions: [] });
    expect(await shaky.virsh(["list", "--all", "--uuid"])).toBe(vm.id);
    expect(copiesOfImages()).toHaveLength(1);
    expect(filesOfVms()).toEqual([`console-${vm.id}.log`, name]);
    expect(statSync(join(shaky.poolDir, name)).size).toBe(IMAGE_BYTES);
  });

  it("in the middle of a delete leaves nothing behind", async () => {
    // It takes the call, and dies before it does anything about it.
    shaky.pauseLibvirtd();
    const operation = await scene.ask("halfway", "delete");
    await expect
      .poll(() => scene.operation(operation), PATIENCE)
      .toMatchObject({ state: "running", steps: [{ name: "force-off", state: "running" }] });
    await shaky.stopLibvirtd("SIGKILL");
    await untilWaiting(operation);
    await shaky.startLibvirtd();
    expect(await scene.end(operation)).toMatchObject({ state: "succeeded" });
    expect(await shaky.virsh(["list", "--all", "--uuid"])).toBe("");
    expect(filesOfVms()).toEqual([]);
  });
});

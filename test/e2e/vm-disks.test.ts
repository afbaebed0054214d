import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  attachVmDisk,
  createVolume,
  deleteVolume,
  detachVmDisk,
  getVmConsoleLog,
  getVolume,
  listPools,
  listVolumes,
  resizeVolume,
  uploadImage,
} from "../../openapi/sdk/index.ts";
import { GUEST_KERNEL_ARGS } from "../../src/setup/guest-image.mjs";
import { FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// Disks of real guests, as the guests see them.

vi.setConfig({ testTimeout: 300_000 });

const GIB_IN_SECTORS = 2 ** 21;

let service: TestService;
let host: KvmHost;
let scene: FaultScene;

beforeAll(async () => {
  [service, host] = await Promise.all([startTestService(), startKvmHost()]);
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
  await uploadGuest(scene.client);
}, 600_000);

afterAll(async () => {
  await service.stop();
  await host.stop();
}, 120_000);

async function logOf(vm: string): Promise<string> {
  const query = { maxBytes: 1_000_000 };
  return await ok(getVmConsoleLog({ client: scene.client, path: { vm }, query, parseAs: "text" }));
}

/** The disks that the guest told of last: sizes in sectors by serial. */
async function disksSeenIn(vm: string): Promise<Readonly<Record<string, number>>> {
  const lines = [...(await logOf(vm)).matchAll(/DROVER-GUEST-DISKS((?: [a-z]+=[^ :]*:\d+)*)\./g)];
  const told = [...(lines.at(-1)?.[1] ?? "").matchAll(/=([^ :]*):(\d+)/g)];
  return Object.fromEntries(told.map(([, serial = "", size]) => [serial, Number(size)]));
}

async function untilSeen(vm: string, disks: Readonly<Record<string, number>>): Promise<void> {
  await expect.poll(() => disksSeenIn(vm), PATIENCE).toEqual(disks);
}

async function succeeded(
  answer: Promise<{ data?: { operation: { id: string } } | undefined; error?: unknown }>,
) {
  const { operation } = await ok(answer);
  const ended = await scene.end(operation);
  expect(ended, JSON.stringify(ended)).toMatchObject({ state: "succeeded" });
}

describe("a guest that runs", () => {
  it("sees disks that come, grow and go, and has after a restart what it had before", async () => {
    const { client } = scene;
    const vm = await scene.addVm("seer", "local", { memoryMib: 128, boot: GUEST_BOOT });
    await untilSeen("seer", { root: GIB_IN_SECTORS });
    await succeeded(createVolume({ client, body: { name: "data-1", host: "local", sizeGib: 2 } }));
    const path = { vm: "seer" };
    await succeeded(attachVmDisk({ client, path, body: { name: "data", volume: "data-1" } }));
    await untilSeen("seer", { root: GIB_IN_SECTORS, data: 2 * GIB_IN_SECTORS });
    await succeeded(attachVmDisk({ client, path, body: { name: "scratch", sizeGib: 1 } }));
    await untilSeen("seer", { root: GIB_IN_SECTORS, data: 2 * GIB_IN_SECTORS, scratch: GIB_IN_SECTORS });

    await succeeded(resizeVolume({ client, path: { volume: "data-1" }, body: { sizeGib: 3 } }));
    await untilSeen("seer", { root: GIB_IN_SECTORS, data: 3 * GIB_IN_SECTORS, scratch: GIB_IN_SECTORS });
    await succeeded(detachVmDisk({ client, path: { ...path, disk: "scratch" } }));
    await untilSeen("seer", { root: GIB_IN_SECTORS, data: 3 * GIB_IN_SECTORS });
    expect((await scene.vm("seer")).status).toMatchObject({ power: "running", conditions: [] });

    await scene.do("seer", "force-off");
    await scene.do("seer", "start");
    const boots = async () => (await logOf("seer")).match(/DROVER-GUEST-UP/g)?.length;
    await expect.poll(boots, PATIENCE).toBe(2);
    await untilSeen("seer", { root: GIB_IN_SECTORS, data: 3 * GIB_IN_SECTORS });
    await succeeded(detachVmDisk({ client, path: { ...path, disk: "data" } }));
    await untilSeen("seer", { root: GIB_IN_SECTORS });
    await scene.do("seer", "delete");

    const kept = await ok(getVolume({ client, path: { volume: "data-1" } }));
    expect(kept).toMatchObject({ vm: null, state: "ready", capacityBytes: 3 * 2 ** 30 });
    const files = (await host.exec("ls", ["/var/lib/libvirt/images"]))
      .split("\n")
      .filter((name) => name !== "" && !name.startsWith("drover-image-"));
    expect(files).toEqual([kept.nameInPool]);
    expect(files.join()).not.toContain(vm.id);
  });

  it("finds no room for what it writes, is paused, told so, and goes on where there is room", async () => {
    const { client } = scene;
    const place = "/var/lib/libvirt/small";
    await host.exec("mkdir", ["-p", place]);
    await host.exec("mount", ["-t", "tmpfs", "-o", "size=32m", "tmpfs", place]);
    await host.virsh(["pool-define-as", "small", "dir", "--target", place]);
    await host.virsh(["pool-start", "small"]);
    await expect
      .poll(async () => (await ok(listPools({ client, query: { name: "small" } }))).items.length, PATIENCE)
      .toBe(1);
    const commandLine = `${GUEST_KERNEL_ARGS} drover.fill=vdb`;
    const spec = { memoryMib: 128, boot: { ...GUEST_BOOT, commandLine }, runPolicy: "stopped" as const };
    const made = await ok(scene.askForVm("filler", "local", spec));
    expect(await scene.end(made.operation)).toMatchObject({ state: "succeeded" });
    await succeeded(
      createVolume({ client, body: { name: "thin", host: "local", pool: "small", sizeGib: 1 } }),
    );
    const path = { vm: "filler" };
    await succeeded(attachVmDisk({ client, path, body: { name: "thin", volume: "thin" } }));
    await scene.do("filler", "start");
    await scene.untilVm("filler", {
      ...{ power: "paused", powerReason: "ioerror" },
      conditions: [{ type: "DiskError", reason: "NoSpace" }],
    });
    expect(await logOf("filler")).not.toContain("DROVER-GUEST-FILLED");
    await host.exec("mount", ["-o", "remount,size=128m", place]);
    await scene.do("filler", "resume");
    await expect.poll(() => logOf("filler"), PATIENCE).toContain("DROVER-GUEST-FILLED vdb 0");
    await scene.untilVm("filler", { power: "running", conditions: [] });
    await scene.do("filler", "delete");
    await succeeded(deleteVolume({ client, path: { volume: "thin" } }));
    expect(await host.exec("ls", [place])).toBe("");
  });

  it("wrote to a disk that can be downloaded once it is off", async () => {
    const { client } = scene;
    const content = randomBytes(3 * 2 ** 20);
    const query = { kind: "disk" as const };
    await ok(uploadImage({ client, path: { image: "bytes" }, query, body: new Blob([content]) }));
    const disks = [{ name: "root", image: "bytes" }];
    await scene.addVm("writer", "local", { memoryMib: 128, boot: GUEST_BOOT, disks });
    const { items } = await ok(listVolumes({ client, query: { vm: "writer" } }));
    const id = items.find(({ role }) => role === "disk")?.id ?? "";
    const download = () =>
      fetch(`${service.url}/v1/volumes/${id}/content`, {
        headers: { authorization: `Bearer ${service.token}` },
      });
    expect(await (await download()).json()).toMatchObject({ code: "invalid_state", status: 409 });
    await scene.do("writer", "force-off");
    const answer = await download();
    expect(answer.headers.get("content-disposition")).toBe(`attachment; filename="${id}.raw"`);
    expect(answer.headers.get("content-length")).toBe(String(content.length));
    expect(Buffer.from(await answer.arrayBuffer()).equals(content)).toBe(true);
    await scene.do("writer", "delete");
  });

  it("that is deaf keeps its disk, and so do its definition and its spec", async () => {
    const { client } = scene;
    // Neither ACPI nor the ports themselves tell this guest of anything.
    const commandLine = `${GUEST_KERNEL_ARGS} acpi=off pci=noacpi pcie_ports=compat`;
    const vm = await scene.addVm("deaf", "local", {
      ...{ memoryMib: 128, boot: { ...GUEST_BOOT, commandLine } },
      disks: [
        { name: "root", sizeGib: 1 },
        { name: "data", sizeGib: 1 },
      ],
    });
    const query = { timeoutSeconds: 1 };
    const { operation } = await ok(
      detachVmDisk({ client, path: { vm: "deaf", disk: "data" }, query: { ...query } }),
    );
    expect(await scene.end(operation)).toMatchObject({
      state: "failed",
      error: { code: "guest_did_not_let_go" },
    });
    expect((await scene.vm("deaf")).spec).toEqual(vm.spec);
    const { items } = await ok(listVolumes({ client, query: { vm: "deaf" } }));
    const file = join(host.poolDir, items.find(({ disk }) => disk === "data")?.nameInPool ?? "none");
    const name = vm.status.domainName ?? "";
    expect(await host.virsh(["dumpxml", name])).toContain(file.split("/").at(-1));
    expect(await host.virsh(["dumpxml", "--inactive", name])).toContain(file.split("/").at(-1));
    await scene.do("deaf", "delete");
  });
});

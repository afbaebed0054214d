import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { deleteVm, listHostImages, registerHost } from "../../openapi/sdk/index.ts";
import { MIB } from "../../src/lib/units.ts";
import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../src/setup/guest-image.mjs";
import { type CountingProxy, startCountingProxy } from "../fixtures/counting-proxy.ts";
import { putImage, qcow2Image } from "../fixtures/guest-images.ts";
import {
  addVm,
  askForVm,
  ok,
  operationEnd,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

const VMS = 20;
/** What the calls of a create may weigh beside the image. */
const TALK_BYTES = 4 * MIB;

let service: TestService;
let hosts: KvmHost[];
let proxies: CountingProxy[];

beforeAll(async () => {
  service = await startTestService();
  hosts = await Promise.all([startKvmHost(), startKvmHost()]);
  proxies = await Promise.all(hosts.map(({ socketPath }) => startCountingProxy(socketPath)));
  for (const [index, { path }] of proxies.entries()) {
    const uri = `qemu+unix:///system?socket=${path}`;
    const body = {
      name: `kvm-${index}`,
      uri,
      accelerator: "tcg",
      overcommit: { cpu: 64, memory: 16 },
    } as const;
    const { operation } = await ok(registerHost({ client: service.client, body, query: { wait: 60 } }));
    expect(operation.state).toBe("succeeded");
  }
}, 240_000);

afterAll(async () => {
  await service.stop();
  for (const proxy of proxies) await proxy.close();
  for (const host of hosts) await host.stop();
}, 120_000);

const stoppedOn = (host: string, image: string) => ({
  placement: { host },
  runPolicy: "stopped" as const,
  disks: [{ name: "root", image, sizeGib: 1 }],
});

async function createMany(hostNames: readonly string[], image: string, prefix: string): Promise<void> {
  const asked = await Promise.all(
    Array.from({ length: VMS }, (_, n) =>
      askForVm(service, `${prefix}-${n}`, stoppedOn(hostNames[n % hostNames.length] ?? "", image)),
    ),
  );
  for (const { operation } of asked) {
    expect(await operationEnd(service, operation.id)).toMatchObject({ state: "succeeded" });
  }
}

const sent = (): number[] => proxies.map((proxy) => proxy.sentBytes());

async function copyFiles({ poolDir }: KvmHost): Promise<string[]> {
  return (await readdir(poolDir)).filter((name) => name.startsWith("drover-image-"));
}

describe("twenty VMs at once, made of one image, on real libvirt", () => {
  it("bring it to one host once, byte by byte", { timeout: 240_000 }, async () => {
    const content = await qcow2Image(48 * MIB);
    const { sha256 } = await putImage(service, "one", "disk", content);
    const before = sent();
    await createMany(["kvm-0"], "one", "one");
    const [first = 0, second = 0] = sent().map((bytes, index) => bytes - (before[index] ?? 0));
    expect(first).toBeGreaterThanOrEqual(content.length);
    expect(first).toBeLessThan(content.length + TALK_BYTES);
    expect(second).toBeLessThan(TALK_BYTES);
    const [host] = hosts;
    if (host === undefined) throw new Error("no host");
    const [name = "", ...more] = await copyFiles(host);
    expect(more).toEqual([]);
    const arrived = createHash("sha256")
      .update(await readFile(join(host.poolDir, name)))
      .digest("hex");
    expect(arrived).toBe(sha256);
  });

  it("bring it to two hosts twice", { timeout: 240_000 }, async () => {
    const content = await qcow2Image(48 * MIB);
    await putImage(service, "two", "disk", content);
    const before = sent();
    await createMany(["kvm-0", "kvm-1"], "two", "two");
    for (const [index, bytes] of sent().entries()) {
      const travelled = bytes - (before[index] ?? 0);
      expect(travelled).toBeGreaterThanOrEqual(content.length);
      expect(travelled).toBeLessThan(content.length + TALK_BYTES);
    }
  });

  it("run from it, two guests at once, and are removed without it", { timeout: 240_000 }, async () => {
    const { kernel, initrd } = await buildGuestImage();
    for (const [name, file] of [
      ["kernel", kernel],
      ["initrd", initrd],
    ] as const) {
      const chunks = await createReadStream(file).toArray();
      const answer = await fetch(`${service.url}/v1/images/${name}/content?kind=${name}`, {
        method: "PUT",
        headers: { authorization: `Bearer ${service.token}`, "content-type": "application/octet-stream" },
        body: new Uint8Array(Buffer.concat(chunks as Buffer[])),
      });
      expect(answer.status).toBe(201);
    }
    const spec = {
      ...stoppedOn("kvm-0", "one"),
      runPolicy: "running" as const,
      boot: { kernel: "kernel", initrd: "initrd", commandLine: GUEST_KERNEL_ARGS },
    };
    const vms = [await addVm(service, "runs-1", spec), await addVm(service, "runs-2", spec)];
    expect(vms.map(({ status }) => status.power)).toEqual(["running", "running"]);
    const path = { host: "kvm-0" };
    const copies = await ok(listHostImages({ client: service.client, path }));
    expect(copies.items.map(({ state }) => state)).toEqual(["ready", "ready", "ready", "ready"]);
    for (const { id } of vms) {
      const { operation } = await ok(deleteVm({ client: service.client, path: { vm: id } }));
      expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
    }
    const after = await ok(listHostImages({ client: service.client, path }));
    expect(after.items.map(({ volumeCount }) => volumeCount).sort((a, b) => a - b)).toEqual([0, 0, 10, 20]);
  });
});

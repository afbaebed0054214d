import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  getHost,
  getOperation,
  getVm,
  getVmConsoleLog,
  type Operation,
  registerHost,
} from "../../openapi/sdk/index.ts";
import { SYSTEM_TOOLS } from "../../src/images/build/build-tools.ts";
import { buildDebianImage, DEBIAN_GREETING } from "../fixtures/debian-image.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";

// The image that is built for KVM and Xen alike, from its disk, on a real Xen host. There GRUB reads kernel and initrd in
// pieces of 4 KiB, in a machine that is emulated twice: a boot takes a quarter of an hour.

const PATIENCE_MS = 3_600_000;
const IMAGE = "debian-12";

let service: TestService;
let host: XenRigHost;

beforeAll(async () => {
  [service, host] = await Promise.all([startTestService({}, { buildTools: SYSTEM_TOOLS }), startXenHost()]);
  const { client } = service;
  await buildDebianImage(client, IMAGE);
  const { uri, privateKey, knownHosts } = host;
  const body = { name: "x1", uri, credentials: { ssh: { privateKey, knownHosts } } };
  const { host: registered } = await ok(registerHost({ client, body, query: { wait: 60 } }));
  expect(registered.status).toMatchObject({ state: "ready", error: null });
}, PATIENCE_MS);
afterAll(async () => {
  await service.stop();
  await host.stop();
}, PATIENCE_MS);

/** Waits for an operation as long as it takes; the test's own limit ends it. */
async function end({ id }: Pick<Operation, "id">): Promise<Operation> {
  for (;;) {
    const path = { operation: id };
    const operation = await ok(getOperation({ client: service.client, path, query: { wait: 60 } }));
    if (operation.endedAt !== null) return operation;
  }
}

/** A host that is busy with a guest may have been given up for a moment. */
async function untilHostIsReady(): Promise<void> {
  while ((await ok(getHost({ client: service.client, path: { host: "x1" } }))).status.state !== "ready")
    await sleep(1_000);
}

/** What the guest has written; null: its host was too busy to tell. */
async function readConsole(vm: string): Promise<string | null> {
  const answer = await getVmConsoleLog({ client: service.client, path: { vm }, parseAs: "text" });
  return answer.data ?? null;
}

async function untilItGreets(vm: string): Promise<string> {
  for (;;) {
    const text = await readConsole(vm);
    if (text !== null && DEBIAN_GREETING.test(text)) return text;
    const { status } = await ok(getVm({ client: service.client, path: { vm } }));
    if (status.power === "off" || status.power === "crashed")
      throw new Error(`it is ${status.power}: ${text}`);
    await sleep(5_000);
  }
}

it.each(["pv", "pvh"] as const)(
  "boots Debian as %s from the disk that was built",
  async (guestType) => {
    const { client } = service;
    await untilHostIsReady();
    const name = `debian-${guestType}`;
    const disks = [{ name: "root", image: IMAGE }];
    const spec = { guestType, cpu: { count: 1 }, memoryMib: 512, disks, placement: { host: "x1" } };
    const { vm, operation } = await ok(createVm({ client, body: { name, spec } }));
    expect(vm.spec.boot).toEqual({ firmware: "pvgrub" });
    const last = vm.id.slice(-12);
    expect(await end(operation)).toMatchObject({ state: "succeeded", error: null });
    const { status } = await ok(getVm({ client, path: { vm: name } }));
    expect(status).toMatchObject({ power: "running", hypervisor: "xen", guestType });

    const text = await untilItGreets(name);
    expect(text).toContain("Debian GNU/Linux 12 localhost hvc0");
    // The API gives the log's end, and that is no longer in it.
    const grub = await host.run([
      "sh",
      "-c",
      'grep -c "Welcome to GRUB!" /var/log/xen/console/*-$1.log',
      "sh",
      last,
    ]);
    expect(grub.stdout).toBe("1\n");

    const deleted = await ok(deleteVm({ client, path: { vm: name } }));
    expect(await end(deleted.operation)).toMatchObject({ state: "succeeded", error: null });
    const list = 'xl list | tail -n +2 | wc -l; find /var/lib/drover-xen /var/log/xen/console -name "*$1*"';
    const { stdout } = await host.run(["sh", "-c", list, "sh", last]);
    expect(stdout).toBe("1\n");
  },
  PATIENCE_MS,
);

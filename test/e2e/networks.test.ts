import { afterAll, beforeAll, expect, it, vi } from "vitest";
import {
  attachVmNic,
  createNetwork,
  deleteNetwork,
  detachVmNic,
  openVmConsole,
  type Vm,
} from "../../openapi/sdk/index.ts";
import { type ConsoleClient, connectConsole } from "../fixtures/console-client.ts";
import { FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// Two real guests in a network of ours: their addresses by DHCP, and packets between them.

vi.setConfig({ testTimeout: 400_000 });

const NETWORK = "lab";
let service: TestService;
let host: KvmHost;
let scene: FaultScene;
const consoles = new Map<string, ConsoleClient>();

beforeAll(async () => {
  [service, host] = await Promise.all([startTestService(), startKvmHost()]);
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
  await uploadGuest(service.client);
  const body = { name: NETWORK, kind: "isolated" as const, ipv4: { cidr: "10.88.0.0/24" } };
  await ok(createNetwork({ client: service.client, body }));
}, 300_000);

afterAll(async () => {
  for (const { socket } of consoles.values()) socket.close();
  await service.stop();
  await host.stop();
}, 120_000);

function addGuest(name: string, nic: { readonly allowSpoofing?: boolean } = {}): Promise<Vm> {
  const nics = [{ name: "eth0", network: NETWORK, ...nic }];
  return scene.addVm(name, "local", { memoryMib: 128, boot: GUEST_BOOT, disks: [], nics });
}

let commands = 0;

/** Types a command into the guest's shell, and returns what it wrote. */
async function inGuest(vm: string, command: string): Promise<string> {
  let client = consoles.get(vm);
  if (client === undefined) {
    const { webSocketUrl } = await ok(
      openVmConsole({ client: service.client, path: { vm }, body: { kind: "serial" } }),
    );
    client = await connectConsole(webSocketUrl ?? "");
    consoles.set(vm, client);
    client.type("\n");
  }
  const mark = `done-${++commands}`;
  const from = client.text().length;
  // The shell echoes what is typed: the mark is put together only when it is written.
  client.type(`${command}; echo do''ne-${commands}\n`);
  const { text } = client;
  await expect.poll(() => text().slice(from), PATIENCE).toContain(mark);
  return text().slice(from);
}

/** How many of three pings were answered. */
async function answered(vm: string, to: string, from?: string): Promise<number> {
  const source = from === undefined ? "" : `-I ${from} `;
  const told = await inGuest(vm, `ping -c 3 -W 5 ${source}${to}`);
  return Number(/(\d+) packets received/.exec(told)?.[1]);
}

it("gives guests their addresses, lets them reach each other, and no guest be another", async () => {
  const [a, b] = await Promise.all([addGuest("a"), addGuest("b", { allowSpoofing: true })]);
  expect([a, b].map(({ status }) => status.nics[0]?.addresses[0]).toSorted()).toEqual([
    "10.88.0.2",
    "10.88.0.3",
  ]);
  const addressOf = ({ status }: Vm): string => status.nics[0]?.addresses[0] ?? "";
  for (const vm of [a, b]) {
    await scene.untilVm(vm.name, { addresses: [{ address: addressOf(vm), nic: "eth0", source: "lease" }] });
  }
  expect(await answered("a", addressOf(b))).toBe(3);
  expect(await answered("b", addressOf(a))).toBe(3);

  // Under another address: what a guest may not do, and what one may that is said to.
  for (const [vm, own] of [
    ["a", "10.88.0.98"],
    ["b", "10.88.0.99"],
  ] as const) {
    await inGuest(vm, `ip addr add ${own}/24 dev eth0`);
  }
  expect(await answered("a", addressOf(b), "10.88.0.98")).toBe(0);
  expect(await answered("b", addressOf(a), "10.88.0.99")).toBe(3);
  expect(await answered("a", addressOf(b))).toBe(3);

  // One more NIC while it runs, and out again.
  const path = { vm: "a" };
  const nic = { name: "eth1", network: NETWORK };
  const attached = await ok(attachVmNic({ client: service.client, path, body: nic }));
  expect(await scene.end(attached.operation)).toMatchObject({ state: "succeeded" });
  await scene.untilVm("a", {
    addresses: [
      { address: addressOf(a), nic: "eth0", source: "lease" },
      { address: "10.88.0.4", nic: "eth1", source: "lease" },
    ],
  });
  const detached = await ok(detachVmNic({ client: service.client, path: { vm: "a", nic: "eth1" } }));
  expect(await scene.end(detached.operation)).toMatchObject({ state: "succeeded" });
  expect(await inGuest("a", "ls /sys/class/net")).not.toContain("eth1");

  const networks = async () => await host.virsh(["net-list", "--all", "--name"]);
  expect(await networks()).toContain(NETWORK);
  const leases = async () =>
    await host.virsh(["net-dumpxml", (await networks()).match(/lab-\w+/)?.[0] ?? ""]);
  expect(await leases()).toContain("<host mac=");
  for (const vm of ["a", "b"]) await scene.do(vm, "delete");
  expect(await leases()).not.toContain("<host mac=");
  const { operation } = await ok(deleteNetwork({ client: service.client, path: { network: NETWORK } }));
  expect(await scene.end(operation)).toMatchObject({ state: "succeeded" });
  expect(await networks()).not.toContain(NETWORK);
});

import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { createSshKey, getVmConsoleLog } from "../../openapi/sdk/index.ts";
import { FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { publicKey } from "../fixtures/ssh-keys.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// A real guest's kernel finds the seed by its label, mounts it and tells on its console what is in it.

vi.setConfig({ testTimeout: 300_000 });

let service: TestService;
let host: KvmHost;
let scene: FaultScene;

beforeAll(async () => {
  [service, host] = await Promise.all([startTestService(), startKvmHost()]);
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
  await uploadGuest(service.client);
}, 180_000);

afterAll(async () => {
  await service.stop();
  await host.stop();
}, 120_000);

async function consoleOf(vm: string): Promise<string> {
  return String((await getVmConsoleLog({ client: service.client, path: { vm }, parseAs: "text" })).data);
}

/** What the guest found, by the name of the file: its digest. */
function filesTold(log: string): ReadonlyMap<string, string> {
  const lines = [...log.matchAll(/^DROVER-SEED-FILE ([0-9a-f]{64}) {2}(\S+)\r?$/gm)];
  return new Map(lines.map(([, sha256 = "", name = ""]) => [name, sha256]));
}

it("is seen in the guest with what was asked, cannot be written there, and goes with the VM", async () => {
  await ok(createSshKey({ client: service.client, body: { name: "ada", publicKey: publicKey("ada") } }));
  const cloudInit = {
    hostname: "seen.example",
    sshKeys: ["ada"],
    users: [{ name: "ops", sshKeys: ["ada"], sudo: true }],
    userData: `#!/bin/sh\n${"# as it is, ü\r\n".repeat(2000)}`,
    networkConfig: "version: 2\nethernets: {eth0: {dhcp4: true}}\n",
  };
  const vm = await scene.addVm("seen", "local", { memoryMib: 192, boot: GUEST_BOOT, cloudInit });
  await expect.poll(() => consoleOf("seen"), PATIENCE).toContain("vendor-data");
  const log = await consoleOf("seen");
  expect(log).toContain(`DROVER-SEED ${vm.id} seen.example`);
  const told = filesTold(log);
  expect([...told.keys()]).toEqual(["meta-data", "network-config", "user-data", "vendor-data"]);
  const { userData, networkConfig } = vm.spec.cloudInit ?? {};
  expect(told.get("user-data")).toBe(userData?.sha256);
  expect(told.get("network-config")).toBe(networkConfig?.sha256);
  expect(log).not.toContain("DROVER-SEED-WRITABLE");
  const seed = new RegExp(`^drover-[0-9a-f]{12}-${vm.id}-seed\\.iso$`);
  expect(await readdir(host.poolDir)).toContainEqual(expect.stringMatching(seed));
  await scene.do("seen", "delete");
  expect((await readdir(host.poolDir)).filter((name) => name.includes(vm.id))).toEqual([]);
});

it("is not there for a VM that asked for none", async () => {
  await scene.addVm("unseeded", "local", { memoryMib: 192, boot: GUEST_BOOT });
  await expect.poll(() => consoleOf("unseeded"), PATIENCE).toContain("DROVER-GUEST-UP");
  await expect.poll(() => consoleOf("unseeded"), PATIENCE).toContain("Please press Enter");
  expect(await consoleOf("unseeded")).not.toContain("DROVER-SEED");
  await scene.do("unseeded", "delete");
});

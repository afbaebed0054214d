import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  attachVmNic,
  createNetwork,
  createSshKey,
  detachVmNic,
  getImageLog,
  getVmConsoleLog,
} from "../../openapi/sdk/index.ts";
import { SYSTEM_TOOLS } from "../../src/images/build/build-tools.ts";
import { buildDebianImage } from "../fixtures/debian-image.ts";
import { FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { ok, startTestService, type TestService } from "../fixtures/service.ts";
import { makeGuestSsh } from "../rigs/kvm/guest-ssh.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// The real programs, the real mirror, a real boot, and what a guest is like from inside: one boot for all of it.

let service: TestService;
let host: KvmHost;
let scene: FaultScene;

beforeAll(async () => {
  [service, host] = await Promise.all([startTestService({}, { buildTools: SYSTEM_TOOLS }), startKvmHost()]);
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
}, 300_000);
afterAll(async () => {
  await service.stop();
  await host.stop();
}, 120_000);

/** A guest without acceleration boots for minutes, and its cloud-init is a program in Python. */
const BOOT_PATIENCE = { timeout: 900_000, interval: 2_000 };

it("builds Debian, and a VM is made of it that can be used", { timeout: 1_800_000 }, async () => {
  const { client, dataDir } = service;
  const { image } = await buildDebianImage(client, "debian-12", {
    packages: ["tree", "qemu-guest-agent"],
    cloudInit: true,
  });
  expect(image).toMatchObject({ state: "ready", format: "qcow2", source: { suite: "bookworm" } });
  const log = await getImageLog({ client, path: { image: "debian-12" }, parseAs: "text" });
  expect(log.data).toContain("Setting up tree (");
  expect(await readdir(join(dataDir, "images/builds"))).toEqual([]);

  const ssh = await makeGuestSsh(host);
  await ok(createSshKey({ client, body: { name: "laptop", publicKey: ssh.publicKey } }));
  const network = { name: "lab", kind: "nat" as const, ipv4: { cidr: "10.88.0.0/24" } };
  await ok(createNetwork({ client, body: network }));
  const vm = await scene.addVm("debian", "local", {
    memoryMib: 640,
    disks: [{ name: "root", image: "debian-12", sizeGib: 4 }],
    nics: [{ name: "eth0", network: "lab" }],
    cloudInit: {
      hostname: "seen.example",
      sshKeys: ["laptop"],
      users: [{ name: "ops", sshKeys: ["laptop"], sudo: true }],
      userData: "#cloud-config\nwrite_files: [{path: /root/told, content: as it is}]\n",
    },
  });
  const address = vm.status.nics[0]?.addresses[0] ?? "";
  expect(address).toBe("10.88.0.2");
  const inGuest = (command: string, user = "ops"): Promise<string> => ssh.run(user, address, command);
  const isUp = (): Promise<string> => inGuest("cloud-init status --wait").catch(String);
  await expect.poll(isUp, BOOT_PATIENCE).toContain("status: done");

  const readConsole = async () =>
    (await getVmConsoleLog({ client, path: { vm: "debian" }, parseAs: "text" })).data;
  await expect.poll(readConsole, BOOT_PATIENCE).toContain("Debian GNU/Linux 12 seen ttyS0");
  expect(await inGuest("hostname")).toBe("seen\n");
  expect(await inGuest("sudo cat /root/told")).toBe("as it is");
  expect(await inGuest("whoami", "debian")).toBe("debian\n");
  const known = { address, nic: "eth0", source: "lease" };
  const agent = { state: "connected", hostName: "seen", osName: "Debian GNU/Linux 12 (bookworm)", error: null };
  await scene.untilVm("debian", { addresses: [known], agent });

  // The disk is larger than the image, and so is the file system by now.
  expect(image.virtualSizeBytes).toBeLessThan(3 * 2 ** 30);
  expect(Number(/\d+/.exec(await inGuest("df --block-size=1 --output=size /"))?.[0])).toBeGreaterThan(
    3 * 2 ** 30,
  );

  const attached = await ok(
    attachVmNic({ client, path: { vm: "debian" }, body: { name: "eth1", network: "lab" } }),
  );
  expect(await scene.end(attached.operation)).toMatchObject({ state: "succeeded" });
  const { macAddress = "", addresses = [] } = (await scene.vm("debian")).status.nics[1] ?? {};
  const macs = (): Promise<string> => inGuest("cat /sys/class/net/*/address");
  await expect.poll(macs, PATIENCE).toContain(macAddress);
  // By hand, so that no DHCP server knows of it: only the guest itself can tell.
  const find = `nic=$(basename $(dirname $(grep -l ${macAddress} /sys/class/net/*/address)))`;
  await inGuest(`${find}; sudo ip link set $nic up; sudo ip address add ${addresses[0]}/24 dev $nic`);
  await scene.untilVm("debian", {
    addresses: [known, { address: addresses[0], nic: "eth1", source: "agent" }],
  });
  const detached = await ok(detachVmNic({ client, path: { vm: "debian", nic: "eth1" } }));
  expect(await scene.end(detached.operation)).toMatchObject({ state: "succeeded" });
  expect(await macs()).not.toContain(macAddress);

  await scene.do("debian", "delete");
});

it("ends its programs when the service is killed", async () => {
  // A mark that no other process has.
  const mark = `${1_000_000 + process.pid}`;
  const marked = async () => {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const lines = await Promise.all(
      pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
    );
    return lines.filter((line) => line.startsWith("sleep\0") && line.includes(mark)).length;
  };
  const script = `
    import { runConfined } from ${JSON.stringify(new URL("../../src/images/build/run-confined.ts", import.meta.url).href)};
    const args = ["-c", "setsid sleep ${mark} & sleep ${mark} & wait"];
    const tools = { path: "/usr/bin:/bin:/usr/sbin:/sbin" };
    await runConfined({ tools, program: "sh", args, cwd: "/", env: {}, signal: AbortSignal.timeout(600_000) });
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "ignore" });
  await expect.poll(marked, { timeout: 30_000 }).toBe(2);
  child.kill("SIGKILL");
  await once(child, "exit");
  await expect.poll(marked, { timeout: 30_000 }).toBe(0);
});

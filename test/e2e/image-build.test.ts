import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { getImageLog, getVmConsoleLog } from "../../openapi/sdk/index.ts";
import { SYSTEM_TOOLS } from "../../src/images/build/build-tools.ts";
import { buildDebianImage, DEBIAN_GREETING } from "../fixtures/debian-image.ts";
import { FaultScene } from "../fixtures/fault-scene.ts";
import { startTestService, type TestService } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// The real programs, the real mirror, and a real boot.

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

it("builds Debian, and a VM boots from it on KVM", { timeout: 1_800_000 }, async () => {
  const { client, dataDir } = service;
  const { image } = await buildDebianImage(client, "debian-12");
  expect(image).toMatchObject({ state: "ready", format: "qcow2", source: { suite: "bookworm" } });
  const log = await getImageLog({ client, path: { image: "debian-12" }, parseAs: "text" });
  expect(log.data).toContain("Setting up tree (");
  expect(await readdir(join(dataDir, "images/builds"))).toEqual([]);

  const disks = [{ name: "root", image: "debian-12" }];
  await scene.addVm("debian", "local", { memoryMib: 512, disks });
  const readConsole = async () =>
    (await getVmConsoleLog({ client, path: { vm: "debian" }, parseAs: "text" })).data;
  await expect.poll(readConsole, { timeout: 900_000, interval: 2_000 }).toMatch(DEBIAN_GREETING);
  expect(await readConsole()).toContain("Debian GNU/Linux 12 localhost ttyS0");
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

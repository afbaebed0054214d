import { setTimeout as sleep } from "node:timers/promises";
import type { HostConnection } from "../../src/hypervisors/hypervisor.ts";
import { libvirtDriver } from "../../src/hypervisors/libvirt/driver.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import type { Benchmark } from "./benchmark.ts";
import { percentile } from "./load.ts";
import { describeMachine } from "./machine.ts";
import { type BenchService, startBenchService } from "./service.ts";

const KILLS = 10;
const VM = "/v1/vms/noticed";
const LOOK_EVERY_MS = 2;

/** From the kill of a guest's QEMU to the answer that shows it; the next inventory is an hour away. */
export const noticed: Benchmark = {
  name: "noticed",
  title: "kill -9 of a QEMU process to GET /v1/vms/{vm} showing it, by libvirt's event alone",
  async run(print) {
    if (process.getuid?.() !== 0) {
      print("left out: it needs root, for it starts a libvirtd in namespaces of its own");
      return;
    }
    const host = await startKvmHost();
    const watcher = await watch(host);
    const service = await startBenchService({}, { DROVER_INVENTORY_SECONDS: "3600" });
    try {
      for (const line of await describeMachine(service.databaseUrl)) print(line);
      await addGuest(service, host);
      const kills: Noticed[] = [];
      for (let n = 0; n < KILLS; n++) {
        kills.push(await killOnce(service, host, watcher));
        await service.request("POST", `${VM}/start?wait=60`);
        await until(service, "running");
      }
      const figures = (values: readonly number[]) =>
        `p50 ${percentile(values, 0.5).toFixed(0)} ms, worst ${Math.max(...values).toFixed(0)} ms`;
      print(`${KILLS} kills, asked every few ms: ${figures(kills.map(({ shownMs }) => shownMs))}`);
      print(`of that until libvirt tells it: ${figures(kills.map(({ toldMs }) => toldMs))}`);
      print(`and from there to the API: ${figures(kills.map(({ shownMs, toldMs }) => shownMs - toldMs))}`);
    } finally {
      await watcher.close();
      await service.stop();
      await host.stop();
    }
  },
};

interface Vm {
  readonly status: { readonly power: string; readonly domainName: string };
}

/** Its empty disk boots nothing, so that it costs no CPU. */
async function addGuest(service: BenchService, host: KvmHost): Promise<void> {
  await service.request("POST", "/v1/hosts?wait=60", { name: "bench", uri: host.uri, accelerator: "tcg" });
  const spec = { cpu: { count: 1 }, memoryMib: 64, disks: [{ name: "root", sizeGib: 1 }] };
  await service.request("POST", "/v1/vms?wait=60", { name: "noticed", spec });
  await until(service, "running");
}

interface Noticed {
  readonly toldMs: number;
  readonly shownMs: number;
}

/** One more client of the host's libvirtd: what it is told, and when, Drover cannot know earlier. */
async function watch({ uri }: KvmHost): Promise<HostConnection> {
  const target = {
    uri,
    accelerator: "tcg",
    credentials: {},
    installationId: newId<InstallationId>(),
  } as const;
  return await libvirtDriver.connect(target, { signal: AbortSignal.timeout(LIMIT_MS) });
}

async function killOnce(service: BenchService, host: KvmHost, watcher: HostConnection): Promise<Noticed> {
  const { status } = await service.request<Vm>("GET", VM);
  const pid = host.qemuPid(status.domainName);
  let toldAt = 0;
  const unwatch = watcher.watch((event) => {
    if (event.kind === "domain-changed" && toldAt === 0) toldAt = performance.now();
  });
  const killedAt = performance.now();
  process.kill(pid, "SIGKILL");
  await until(service, "crashed");
  const shownMs = performance.now() - killedAt;
  unwatch();
  return { toldMs: toldAt - killedAt, shownMs };
}

const LIMIT_MS = 60_000;

async function until(service: BenchService, power: string): Promise<void> {
  const began = performance.now();
  for (;;) {
    const { status } = await service.request<Vm>("GET", VM);
    if (status.power === power) return;
    if (performance.now() - began > LIMIT_MS) throw new Error(`the guest is ${status.power}, not ${power}`);
    await sleep(LOOK_EVERY_MS);
  }
}

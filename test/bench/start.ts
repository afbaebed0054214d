import { setTimeout as sleep } from "node:timers/promises";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import type { Benchmark, Print } from "./benchmark.ts";
import { disklessVm, type LibvirtScene, SCENES, type SceneKind, withLibvirtScene } from "./libvirt-scene.ts";
import { percentile } from "./load.ts";
import { describeMachine } from "./machine.ts";

const ROUNDS: Readonly<Record<SceneKind, number>> = { test: 100, qemu: 20 };
const WARM_UP = 5;
const GOAL_MS = 15;
const NAME = "start";

/** One and the same guest, started by turns through the API and by the bare call. */
export const start: Benchmark = {
  name: "start",
  title:
    "start of a stopped VM, from the request to the answer with ?wait, against the same call on the RPC client",
  async run(print) {
    for (const kind of SCENES) {
      await withLibvirtScene(kind, async (scene) => {
        if (kind === "test") for (const line of await describeMachine(scene.service.databaseUrl)) print(line);
        await measure(print, scene, kind);
      });
    }
  },
};

interface VmAnswer {
  readonly vm: { readonly id: string };
  readonly operation: { readonly state: string };
}

async function measure(print: Print, { service, raw }: LibvirtScene, kind: SceneKind): Promise<void> {
  const { vm } = await service.request<VmAnswer>("POST", "/v1/vms?wait=60", disklessVm(NAME, "stopped"));
  const uuid = vm.id;
  const { domain } = await raw.call(rpc.domainLookupByUuid, { uuid });
  const throughApi = async (): Promise<void> => {
    const { operation } = await service.request<VmAnswer>("POST", `/v1/vms/${NAME}/start?wait=60`, {});
    if (operation.state !== "succeeded") throw new Error(`the start ended ${operation.state}`);
  };
  const bare = async (): Promise<void> => {
    await raw.call(rpc.domainCreateWithFlags, { domain, flags: 0 });
  };
  const stopped = async (): Promise<void> => {
    await raw.call(rpc.domainDestroyFlags, { domain, flags: 0 });
    while ((await powerOf(service)) !== "off") await sleep(5);
  };
  const times = { api: [] as number[], bare: [] as number[] };
  for (let round = -WARM_UP; round < ROUNDS[kind]; round++) {
    const api = await timed(throughApi);
    await stopped();
    const direct = await timed(bare);
    while ((await powerOf(service)) !== "running") await sleep(5);
    await stopped();
    if (round < 0) continue;
    times.api.push(api);
    times.bare.push(direct);
  }
  const [api, direct] = [percentile(times.api, 0.5), percentile(times.bare, 0.5)];
  print(
    `${kind}: p50 ${api.toFixed(1)} ms through the API, ${direct.toFixed(1)} ms by the bare call: ` +
      `difference ${(api - direct).toFixed(1)} ms (goal ${GOAL_MS}, ratio ${((api - direct) / GOAL_MS).toFixed(2)}); ` +
      `p99 ${percentile(times.api, 0.99).toFixed(1)} and ${percentile(times.bare, 0.99).toFixed(1)} ms, ` +
      `${ROUNDS[kind]} starts each`,
  );
}

async function timed(work: () => Promise<void>): Promise<number> {
  const before = performance.now();
  await work();
  return performance.now() - before;
}

async function powerOf(service: LibvirtScene["service"]): Promise<string> {
  const { status } = await service.request<{ readonly status: { readonly power: string } }>(
    "GET",
    `/v1/vms/${NAME}`,
  );
  return status.power;
}

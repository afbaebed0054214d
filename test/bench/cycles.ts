import { randomUUID } from "node:crypto";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import type { Benchmark } from "./benchmark.ts";
import { cpuTime } from "./cpu-time.ts";
import { disklessVm, type LibvirtScene, withLibvirtScene } from "./libvirt-scene.ts";
import { describeMachine } from "./machine.ts";
import { countStatements } from "./statements.ts";

const AT_ONCE = 50;
const WARM_UP = 50;
const CYCLES = 500;
const GOAL = 0.1;
const MOST_STATEMENTS = 40;

/** Whole lives of VMs, through the API and on the bare client, one after the other on the same daemon. */
export const cycles: Benchmark = {
  name: "cycles",
  title:
    "create, start, stop and delete on libvirt's test driver, against define, start, destroy and undefine",
  async run(print, { statements: showStatements }) {
    const statements = countStatements();
    await withLibvirtScene("test", async (scene) => {
      const { service } = scene;
      for (const line of await describeMachine(service.databaseUrl)) print(line);
      await rateOf(WARM_UP, (n) => throughApi(scene, `warm-${n}`));
      await rateOf(WARM_UP, () => bare(scene));
      statements.reset();
      const before = cpuTime(service.dataDir);
      const api = await rateOf(CYCLES, (n) => throughApi(scene, `vm-${n}`));
      const after = cpuTime(service.dataDir);
      const sent = statements.total();
      const direct = await rateOf(CYCLES, () => bare(scene));
      print(
        `${CYCLES} cycles, ${AT_ONCE} at once: ${api.toFixed(1)}/s through the API, ` +
          `${direct.toFixed(1)}/s on the bare client, ratio ${(api / direct).toFixed(3)} (goal ${GOAL})`,
      );
      const each = (from: number, to: number) => `${((to - from) / CYCLES).toFixed(1)} ms`;
      print(
        `CPU time a cycle: service and clients ${each(before.service, after.service)}, ` +
          `Postgres ${each(before.postgres, after.postgres)}; statements a cycle: ${(sent / CYCLES).toFixed(1)}`,
      );
      if (showStatements) for (const line of statements.report(CYCLES, MOST_STATEMENTS)) print(line);
    });
  },
};

/** Cycles per second, this many at once. */
async function rateOf(count: number, cycle: (n: number) => Promise<void>): Promise<number> {
  let next = 0;
  const started = performance.now();
  const oneByOne = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) await cycle(n);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, oneByOne));
  return count / ((performance.now() - started) / 1000);
}

async function throughApi({ service }: LibvirtScene, name: string): Promise<void> {
  const changes = [
    ["POST", "/v1/vms", disklessVm(name, "stopped")],
    ["POST", `/v1/vms/${name}/start`, {}],
    ["POST", `/v1/vms/${name}/stop`, { mode: "force" }],
    ["DELETE", `/v1/vms/${name}`, undefined],
  ] as const;
  for (const [method, path, body] of changes) {
    const answer = await service.request<{
      readonly operation: { readonly id: string; readonly state: string };
    }>(method, `${path}?wait=60`, body);
    if (answer.operation.state !== "succeeded")
      throw new Error(`${method} ${path} ended ${answer.operation.state}`);
  }
}

async function bare({ raw }: LibvirtScene): Promise<void> {
  const uuid = randomUUID();
  const xml = `<domain type="test"><name>bare-${uuid}</name><uuid>${uuid}</uuid><memory unit="MiB">64</memory>
    <vcpu>1</vcpu><os><type>hvm</type></os></domain>`;
  const { domain } = await raw.call(rpc.domainDefineXmlFlags, { xml, flags: 0 });
  await raw.call(rpc.domainCreateWithFlags, { domain, flags: 0 });
  await raw.call(rpc.domainDestroyFlags, { domain, flags: 0 });
  await raw.call(rpc.domainUndefineFlags, { domain, flags: 0 });
}

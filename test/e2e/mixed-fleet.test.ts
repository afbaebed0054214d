import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  getVmConsoleLog,
  listVms,
  registerHost,
  updateHost,
  type Vm,
} from "../../openapi/sdk/index.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";

const VM_COUNT = 4;
const MEMORY_MIB = 192;
const PATIENCE_MS = 300_000;
const UP = /DROVER-GUEST-UP/g;

let api: TestApi;
let kvm: KvmHost;
let xen: XenRigHost;

beforeAll(async () => {
  [api, kvm, xen] = await Promise.all([startApi(), startKvmHost(), startXenHost()]);
  const { client } = api;
  await uploadGuest(client);
  const { privateKey, knownHosts } = xen;
  const hosts = [
    { name: "k1", uri: kvm.uri, accelerator: "tcg" as const },
    { name: "x1", uri: xen.uri, credentials: { ssh: { privateKey, knownHosts } } },
  ].map((body) => ok(registerHost({ client, body, query: { wait: 60 } })));
  const [k1, x1] = (await Promise.all(hosts)).map(({ host }) => host);
  expect(k1?.status).toMatchObject({ state: "ready", hypervisor: "kvm", driver: "libvirt" });
  expect(x1?.status).toMatchObject({ state: "ready", hypervisor: "xen", driver: "xl" });
  // As large as the other one, so that placement has no reason to prefer it.
  const spare = (k1?.status.allocatable?.memoryMib ?? 0) - (x1?.status.allocatable?.memoryMib ?? 0);
  const reserve = { memoryMib: (k1?.spec.reserve.memoryMib ?? 0) + spare };
  await ok(updateHost({ client, path: { host: "k1" }, body: { reserve } }));
}, PATIENCE_MS);

afterAll(async () => {
  await api.close();
  await Promise.all([kvm.stop(), xen.stop()]);
}, PATIENCE_MS);

interface Seen {
  readonly verb: string;
  readonly state: string;
  readonly power: string;
}

/** Every verb, with the power in which a VM is left by it, whatever the hypervisor. */
const WALK: readonly (readonly [string, object, string])[] = [
  ["pause", {}, "paused"],
  ["resume", {}, "running"],
  ["reboot", {}, "running"],
  ["reset", {}, "running"],
  ["save", {}, "saved"],
  ["restore", {}, "running"],
  ["stop", { timeoutSeconds: 120, forceAfterTimeout: false }, "off"],
  ["start", {}, "running"],
  ["stop", { mode: "force" }, "off"],
];
/** After these the guest must be up again before the next verb asks something of it. */
const BOOTS: ReadonlySet<string> = new Set(["reboot", "reset"]);

async function waitFor<T>(what: string, look: () => Promise<T | null>): Promise<T> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    if (performance.now() > until) throw new Error(`waited in vain for ${what}`);
    await sleep(500);
  }
}

async function vm(name: string): Promise<Vm> {
  const { items } = await ok(listVms({ client: api.client }));
  const found = items.find((item) => item.name === name);
  if (found === undefined) throw new Error(`there is no VM ${name}`);
  return found;
}

/** How often it has booted; null: its host was too busy to tell. */
async function bootsOf(name: string): Promise<number | null> {
  const answer = await getVmConsoleLog({ client: api.client, path: { vm: name }, parseAs: "text" });
  if (answer.data !== undefined) return (answer.data.match(UP) ?? []).length;
  expect(answer.error).toMatchObject({ code: "host_unreachable" });
  return null;
}

async function act(name: string, verb: string, body: object): Promise<string> {
  const send = (method: string, path: string, json?: object) =>
    fetch(`${api.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${api.token}`, "content-type": "application/json" },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    });
  const asked = await send("POST", `/v1/vms/${name}/${verb}`, body);
  const { operation } = (await asked.json()) as { operation: { id: string } };
  return await waitFor(`the end of ${verb} of ${name}`, async () => {
    const answer = await send("GET", `/v1/operations/${operation.id}?wait=30`);
    const { state, endedAt } = (await answer.json()) as { state: string; endedAt: string | null };
    return endedAt === null ? null : state;
  });
}

async function walk(name: string): Promise<Seen[]> {
  const seen: Seen[] = [];
  let boots = await waitFor(`${name} to boot`, async () => (await bootsOf(name)) || null);
  for (const [verb, body, power] of WALK) {
    const state = await act(name, verb, body);
    await waitFor(`${name} to be ${power}`, async () =>
      (await vm(name)).status.power === power ? true : null,
    );
    seen.push({ verb, state, power: (await vm(name)).status.power });
    if (!BOOTS.has(verb)) continue;
    const before = boots;
    boots = await waitFor(`${name} to boot after ${verb}`, async () => {
      const now = await bootsOf(name);
      return now !== null && now > before ? now : null;
    });
  }
  return seen;
}

describe("a fleet of KVM and Xen", { timeout: 6 * PATIENCE_MS }, () => {
  it("takes VMs that name no hypervisor on both, and does the same to both", async () => {
    const { client } = api;
    const nics = [{ name: "eth0", network: "default" }];
    const names = Array.from({ length: VM_COUNT }, (_, index) => `vm-${index}`);
    for (const name of names) {
      const spec = {
        cpu: { count: 1 },
        memoryMib: MEMORY_MIB,
        boot: GUEST_BOOT,
        nics,
        runPolicy: "stopped" as const,
      };
      const { operation } = await ok(createVm({ client, body: { name, spec }, query: { wait: 60 } }));
      await waitFor(`${name} to be made`, async () =>
        (await vm(name)).status.phase === "ready" ? true : null,
      );
      expect(operation.error).toBeNull();
    }
    const { items } = await ok(listVms({ client }));
    const onKvm = items.filter(({ status }) => status.hypervisor === "kvm");
    const onXen = items.filter(({ status }) => status.hypervisor === "xen");
    expect([onKvm.length, onXen.length]).toEqual([VM_COUNT / 2, VM_COUNT / 2]);

    const chosen = [onKvm[0]?.name ?? "", onXen[0]?.name ?? ""];
    expect(await Promise.all(chosen.map((name) => act(name, "start", {})))).toEqual([
      "succeeded",
      "succeeded",
    ]);
    const [byKvm, byXen] = await Promise.all(chosen.map(walk));
    expect(byKvm).toEqual(WALK.map(([verb, , power]) => ({ verb, state: "succeeded", power })));
    expect(byXen).toEqual(byKvm);

    for (const name of names) await ok(deleteVm({ client, path: { vm: name }, query: { wait: 60 } }));
    await waitFor("all to be gone", async () =>
      (await ok(listVms({ client }))).items.length === 0 ? true : null,
    );
    expect(await kvm.virsh(["list", "--all", "--uuid"])).toBe("");
    const { stdout } = await xen.run(["sh", "-c", "xl list | tail -n +2; ls /var/lib/drover-xen*/*/domains"]);
    expect(stdout.trim().split("\n")).toHaveLength(1);
  });
});

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  getOperation,
  getVm,
  type Operation,
  registerHost,
  startVm,
  stopVm,
  uploadImage,
} from "../../openapi/sdk/index.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";
import { ok } from "../fixtures/service.ts";
import { idleKernel } from "../rigs/xen/idle-kernel.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";

const PATIENCE_MS = 300_000;
const VM = "cut-off";
/** How long after `xl create` has begun the login is cut; it takes seconds in an emulated machine. */
const CUT_AFTER_MS = [0, 700, 1500, 3000] as const;

let api: TestApi;
let xen: XenRigHost;

beforeAll(async () => {
  [api, xen] = await Promise.all([startApi(), startXenHost()]);
  const { client } = api;
  const body = new Blob([new Uint8Array(idleKernel(VM))]);
  await ok(uploadImage({ client, path: { image: "kernel" }, query: { kind: "kernel" }, body }));
  const { uri, privateKey, knownHosts } = xen;
  const host = { name: "x1", uri, credentials: { ssh: { privateKey, knownHosts } } };
  await ended((await ok(registerHost({ client, body: host }))).operation);
}, PATIENCE_MS);

afterAll(async () => {
  await api.close();
  await xen.stop();
}, PATIENCE_MS);

/** The operation when it has ended. */
async function ended({ id }: Pick<Operation, "id">): Promise<Operation> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const operation = await ok(
      getOperation({ client: api.client, path: { operation: id }, query: { wait: 30 } }),
    );
    if (operation.endedAt !== null) return operation;
    if (performance.now() > until) throw new Error(`not over: ${JSON.stringify(operation)}`);
  }
}

/** Runs a text of sh in dom0, by a way that is never cut. */
async function dom0(text: string): Promise<string> {
  const { exitCode, stdout, stderr } = await xen.run(["sh", "-c", text]);
  if (exitCode !== 0) throw new Error(`dom0: ${text} ended with ${exitCode}: ${stderr}`);
  return stdout.trim();
}

describe("a login that is cut in the middle of xl create", { timeout: 4 * PATIENCE_MS }, () => {
  it("leaves one domain, and an operation that ends as it should", async () => {
    const { client } = api;
    const spec = {
      ...{ cpu: { count: 1 }, memoryMib: 64, guestType: "pv" as const, runPolicy: "stopped" as const },
      ...{ hypervisor: "xen" as const, boot: { kernel: "kernel" } },
    };
    const { vm, operation } = await ok(createVm({ client, body: { name: VM, spec } }));
    expect(await ended(operation)).toMatchObject({ state: "succeeded" });
    for (const delayMs of CUT_AFTER_MS) {
      const begun = dom0("until pgrep -f '[x]l create' >/dev/null; do sleep 0.1; done");
      const start = await ok(startVm({ client, path: { vm: VM }, body: {} }));
      await begun;
      await sleep(delayMs);
      xen.cutConnections();
      expect(await ended(start.operation)).toMatchObject({ state: "succeeded", error: null });
      expect(await dom0(`xl list -v | grep -c ${vm.id}`)).toBe("1");
      expect((await ok(getVm({ client, path: { vm: VM } }))).status).toMatchObject({ power: "running" });
      const stop = await ok(stopVm({ client, path: { vm: VM }, body: { mode: "force" } }));
      expect(await ended(stop.operation)).toMatchObject({ state: "succeeded" });
      expect(await dom0("xl list | tail -n +3 | wc -l")).toBe("0");
    }
    const gone = await ok(deleteVm({ client, path: { vm: VM } }));
    expect(await ended(gone.operation)).toMatchObject({ state: "succeeded" });
    const left = "find /var/lib/drover-xen -path '*/domains/*' -o -path '*/locks/*' -o -path '*/pools/*/*'";
    const files = (await dom0(left)).split("\n");
    expect(files.filter((path) => path !== "" && !path.includes("/drover-image-"))).toEqual([]);
  });
});

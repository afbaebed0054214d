import { afterAll, beforeAll, vi } from "vitest";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";
import { describeDriverContract } from "./suite.ts";
import { XL_PARAVIRTUAL, xlHooks, xlWorld } from "./xl-world.ts";

// Guests boot in an emulated machine that emulates them once more, and on a busy machine.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

let host: XenRigHost;

beforeAll(async () => {
  host = await startXenHost();
});
afterAll(async () => {
  await host.stop();
});

describeDriverContract({
  name: "xl-pvh",
  title: "xl, PVH",
  hypervisor: "xen",
  guestType: "pvh",
  declared: XL_PARAVIRTUAL,
  volumeMembers: ["uploadPart", "digestVolume"],
  setUp: () => xlWorld(host),
  hooks: xlHooks(() => host, "pvh"),
});

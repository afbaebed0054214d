import { afterAll, beforeAll, vi } from "vitest";
import { BOOT_SECTOR_MARKER, bootSector } from "../rigs/xen/boot-sector.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";
import { describeDriverContract } from "./suite.ts";
import { XL_CAPABILITIES, xlHooks, xlWorld } from "./xl-world.ts";

// A machine that is emulated in an emulated machine takes minutes to boot Linux. So it does that once, for the kernel that
// is given; everywhere else its firmware boots the first sector of a disk.
vi.setConfig({ testTimeout: 1_200_000, hookTimeout: 600_000 });

const PATIENCE_MS = 900_000;

let host: XenRigHost;

beforeAll(async () => {
  host = await startXenHost();
});
afterAll(async () => {
  await host.stop();
});

describeDriverContract({
  name: "xl-hvm",
  title: "xl, HVM",
  hypervisor: "xen",
  guestType: "hvm",
  declared: [...XL_CAPABILITIES, "vnc", "firmwareBios"],
  guestsRestart: false,
  volumeMembers: ["uploadPart", "digestVolume"],
  setUp: async () => {
    const world = await xlWorld(host);
    const bootMarker = new RegExp(`${world.bootMarker?.source ?? ""}|${BOOT_SECTOR_MARKER.source}`);
    return { ...world, bootSector: bootSector({ obeys: true }), bootMarker, patienceMs: PATIENCE_MS };
  },
  hooks: xlHooks(() => host, "hvm"),
});

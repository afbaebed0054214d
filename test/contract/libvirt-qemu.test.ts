import { afterAll, beforeAll, vi } from "vitest";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { qemuHooks, qemuWorld } from "./libvirt-qemu-world.ts";
import { describeDriverContract } from "./suite.ts";

// Guests boot without acceleration, and on a busy machine.
vi.setConfig({ testTimeout: 240_000 });

let host: KvmHost;

beforeAll(async () => {
  host = await startKvmHost({ ssh: true });
});
afterAll(async () => {
  await host.stop();
});

describeDriverContract({
  name: "libvirt-qemu",
  title: "libvirt, QEMU",
  hypervisor: "kvm",
  guestType: "hvm",
  declared: [
    "start",
    "stop",
    "gracefulStop",
    "reboot",
    "reset",
    "pause",
    "save",
    "consoleLog",
    "serialConsole",
    "vnc",
    "screenshot",
    "volumes",
    "diskHotplug",
    "volumeDownload",
    "directKernel",
    "firmwareBios",
    "firmwareUefi",
    "networks",
    "nicHotplug",
    "guestAgent",
    "events",
  ],
  volumeMembers: ["overlayVolume", "uploadPart"],
  setUp: () => qemuWorld(host),
  hooks: qemuHooks(() => host),
});

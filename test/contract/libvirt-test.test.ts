import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import type { HostTarget } from "../../src/hypervisors/hypervisor.ts";
import { libvirtDriver } from "../../src/hypervisors/libvirt/driver.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { foreignDomainXml } from "./libvirt-foreign.ts";
import { describeDriverContract } from "./suite.ts";

let host: KvmHost;

beforeAll(async () => {
  host = await startKvmHost();
});
afterAll(async () => {
  await host.stop();
});

// Of two addresses virsh takes the last.
const virshTest = (...args: readonly string[]): Promise<string> => host.virsh(["-c", host.testUri, ...args]);

// Its state dies with the last connection, so a break cannot be tested here; the run over QEMU does.
describeDriverContract({
  name: "libvirt-test",
  title: "libvirt's test driver",
  hypervisor: "kvm",
  guestType: "hvm",
  declared: ["start", "stop", "gracefulStop", "reboot", "reset", "pause", "save", "firmwareBios", "events"],
  volumeMembers: [],
  setUp: async () => {
    const target: HostTarget = {
      uri: host.testUri,
      credentials: {},
      accelerator: "auto",
      installationId: newId<InstallationId>(),
    };
    return {
      driver: libvirtDriver,
      target,
      pool: "default-pool",
      network: "default",
      memoryMib: 256,
      kernel: null,
      bootMarker: null,
      patienceMs: 60_000,
      tearDown: async () => undefined,
    };
  },
  hooks: {
    addForeignDomain: async (_world, mark) => {
      const { uuid, xml } = foreignDomainXml("test", mark);
      const file = join(host.dir, `${uuid}.xml`);
      writeFileSync(file, xml);
      await virshTest("define", file);
      rmSync(file);
      return uuid;
    },
    removeForeignDomain: async (_world, uuid) => {
      await virshTest("undefine", uuid);
    },
    cutDomainPower: async (_world, uuid) => {
      await virshTest("destroy", uuid);
    },
    hang: async () => {
      host.pauseLibvirtd();
      return async () => {
        host.continueLibvirtd();
      };
    },
  },
});

import { readdir } from "node:fs/promises";
import { NETWORK_MARK_NAMESPACE } from "../../src/hypervisors/libvirt/ownership.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import type { Rig } from "./campaign.ts";
import type { World } from "./complaints.ts";
import { kernelContent } from "./image-server.ts";
import { NIC_SPEC } from "./scenes.ts";

/** Emulated KVM hosts with a real libvirtd and real QEMU each. */
export async function openQemuRig(hostCount: number): Promise<Rig> {
  const hosts = await Promise.all(Array.from({ length: hostCount }, () => startKvmHost()));
  return {
    hosts: hosts.map(({ uri }, index) => ({
      name: `host-${index}`,
      registration: { uri, accelerator: "tcg", overcommit: { cpu: 64 } },
    })),
    newHostUri: () => {
      throw new Error("no hosts are registered here");
    },
    // Its kernel halts at once: it hears nothing anyway, and lets go of nothing.
    deafen: () => Promise.resolve(),
    guest: { kernel: kernelContent, spec: NIC_SPEC, takesDisks: false },
    makesNetworks: true,
    world: () => readWorld(hosts),
    close: async () => {
      await Promise.all(hosts.map((host) => host.stop()));
    },
  };
}

const CONSOLE_LOG = /^console-([0-9a-f-]{36})\.log(\.\d+)?$/;
/** Powers as the inventory names them, by virsh's word for them. */
const POWERS = { "state-running": "running", "state-paused": "paused", "state-shutoff": "off" } as const;

async function readWorld(hosts: readonly KvmHost[]): Promise<World> {
  const domains = new Map<string, string>();
  const volumes: string[] = [];
  const consoleLogs: string[] = [];
  const networks: string[] = [];
  const leases: string[] = [];
  for (const host of hosts) {
    for (const uuid of (await host.virsh(["net-list", "--all", "--uuid"])).split("\n")) {
      const xml = uuid === "" ? "" : await host.virsh(["net-dumpxml", uuid]);
      if (!xml.includes(NETWORK_MARK_NAMESPACE)) continue;
      networks.push(uuid);
      leases.push(...[...xml.matchAll(/<host mac=["']([0-9a-f:]{17})["']/g)].map(([, mac = ""]) => mac));
    }
    for (const [state, power] of Object.entries(POWERS)) {
      for (const uuid of (await host.virsh(["list", "--all", "--uuid", `--${state}`])).split("\n"))
        if (uuid !== "") domains.set(uuid, power);
    }
    for (const uuid of (await host.virsh(["list", "--all", "--uuid", "--with-managed-save"])).split("\n"))
      if (domains.get(uuid) === "off") domains.set(uuid, "saved");
    // The files themselves, for a pool's list may be old.
    for (const name of await readdir(host.poolDir)) {
      const log = CONSOLE_LOG.exec(name)?.[1];
      if (log === undefined) volumes.push(name);
      else consoleLogs.push(log);
    }
  }
  return { domains, volumes, consoleLogs, networks, leases };
}

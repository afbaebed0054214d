import { createHash } from "node:crypto";
import type {
  Accelerator,
  Capability,
  GuestType,
  HostFacts,
  Hypervisor,
  NumaCell,
  ObservedNetwork,
} from "../hypervisor.ts";
import type { SimSettings } from "./sim-uri.ts";

/** The one storage pool of a simulated host. */
export const SIM_POOL = "default";
/** The one network that a simulated host has by itself. */
const SIM_NETWORK = "default";

const KVM_HVM: readonly Capability[] = [
  "start",
  "stop",
  "gracefulStop",
  "reboot",
  "reset",
  "pause",
  "save",
  "consoleLog",
  "serialConsole",
  "volumes",
  "diskHotplug",
  "directKernel",
  "firmwareBios",
  "firmwareUefi",
  "networks",
  "nicHotplug",
  "guestAgent",
  "events",
];
// A Xen toolstack tells of no change by itself, resets fully virtual guests only, and gives them a BIOS. Its networks are
// the bridges that the host has, and it has no way to an agent.
const XEN_LACKS: readonly Capability[] = ["events", "networks", "firmwareUefi", "guestAgent", "diskHotplug"];
const XEN_HVM = KVM_HVM.filter((ability) => !XEN_LACKS.includes(ability));
const XEN_PARAVIRTUAL: readonly Capability[] = [
  ...XEN_HVM.filter((ability) => !["reset", "firmwareBios"].includes(ability)),
  "firmwarePvgrub",
];

const DECLARED: Readonly<Record<Hypervisor, Partial<Record<GuestType, readonly Capability[]>>>> = {
  kvm: { hvm: KVM_HVM },
  xen: { pv: XEN_PARAVIRTUAL, pvh: XEN_PARAVIRTUAL, hvm: XEN_HVM },
};

/** What simulated hosts of a hypervisor can do for a guest type; empty where it has no such guests. */
export function declaredCapabilities(hypervisor: Hypervisor, guestType: GuestType): ReadonlySet<Capability> {
  return new Set(DECLARED[hypervisor][guestType] ?? []);
}

/** The guest types that simulated hosts of a hypervisor run. */
export function guestTypesOf(hypervisor: Hypervisor): readonly GuestType[] {
  return Object.keys(DECLARED[hypervisor]) as GuestType[];
}

/** What a simulated host tells about itself. The same name is the same machine, whatever the other parameters. */
export function simHostFacts(settings: SimSettings, accelerator: Accelerator): HostFacts {
  const coresPerCell = settings.cpus / settings.numa;
  const threadsPerCore = coresPerCell % 2 === 0 ? 2 : 1;
  return {
    hostUuid: simUuid(`host ${settings.hypervisor} ${settings.name}`),
    hostname: settings.name,
    hypervisor: settings.hypervisor,
    hypervisorVersion: settings.hypervisor === "kvm" ? "10.0.0" : "4.20.0",
    toolstackVersion: "sim 1",
    architecture: "x86_64",
    cpu: {
      model: "Simulated CPU",
      count: settings.cpus,
      sockets: settings.numa,
      coresPerSocket: coresPerCell / threadsPerCore,
      threadsPerCore,
    },
    memoryMib: memoryMibOf(settings),
    numaCells: numaCellsOf(settings),
    accelerator: settings.hypervisor === "xen" ? null : accelerator === "tcg" ? "tcg" : "kvm",
    guestTypes: guestTypesOf(settings.hypervisor).map((guestType) => ({
      guestType,
      capabilities: [...declaredCapabilities(settings.hypervisor, guestType)],
    })),
  };
}

export function memoryMibOf(settings: Pick<SimSettings, "memoryGib">): number {
  return settings.memoryGib * 1024;
}

/** The network that a simulated host has by itself: one with address translation, as a fresh libvirt has. */
export function simNetwork(settings: SimSettings): ObservedNetwork {
  const uuid = simUuid(`network ${settings.hypervisor} ${settings.name} ${SIM_NETWORK}`);
  return { name: SIM_NETWORK, uuid, active: true, bridge: "simbr0", mode: "nat" };
}

/** A UUID that follows from a text (version 8: by a rule of our own). */
export function simUuid(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}

function numaCellsOf(settings: SimSettings): readonly NumaCell[] {
  const cpusPerCell = settings.cpus / settings.numa;
  const memoryPerCell = Math.floor(memoryMibOf(settings) / settings.numa);
  return Array.from({ length: settings.numa }, (_, id) => ({
    id,
    // What does not divide goes to the first cell, so that the cells add up to the host.
    memoryMib: id === 0 ? memoryMibOf(settings) - memoryPerCell * (settings.numa - 1) : memoryPerCell,
    cpus: Array.from({ length: cpusPerCell }, (_unused, index) => id * cpusPerCell + index),
  }));
}

import { HypervisorError, type ObservedDomain } from "../hypervisor.ts";
import type { SimSettings } from "./sim-uri.ts";

/** The domain that a Xen host itself runs in. It is always there, and nobody made it. */
const DOMAIN_0_UUID = "00000000-0000-0000-0000-000000000000";
const DOMAIN_0_MEMORY_MIB = 512;

/** What of a simulated host's memory its own domain takes, in MiB. A KVM host has no such domain. */
export function ownMemoryMibOf({ hypervisor }: Pick<SimSettings, "hypervisor">): number {
  return hypervisor === "xen" ? DOMAIN_0_MEMORY_MIB : 0;
}

/** Domain-0 of a Xen host, as it lists it; none on a KVM host. */
export function domain0Of({ hypervisor }: SimSettings): readonly ObservedDomain[] {
  if (hypervisor !== "xen") return [];
  return [
    {
      ...{ uuid: DOMAIN_0_UUID, name: "Domain-0", power: "running", reason: null },
      ...{ cpuCount: 1, memoryMib: DOMAIN_0_MEMORY_MIB },
      ...{ installationId: null, vmId: null, autostart: false },
    },
  ];
}

/** Throws HypervisorError `foreign` for Domain-0: what is done to it is done to the host. */
export function refuseDomain0({ hypervisor }: SimSettings, uuid: string): void {
  if (hypervisor !== "xen" || uuid !== DOMAIN_0_UUID) return;
  throw new HypervisorError("foreign", "Domain-0 is the host itself: it is never changed");
}

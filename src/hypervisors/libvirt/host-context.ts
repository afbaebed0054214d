import type { Call, HostTarget } from "../hypervisor.ts";
import type { DomainReader } from "./domain-lookup.ts";
import type { GuestPlatform } from "./domain-xml.ts";

/** What libvirt's driver behind a connection is: QEMU for real guests, or its mock. */
export type LibvirtDriverType = "QEMU" | "TEST";

/** What everything that acts on one connected host needs. */
export interface HostContext extends DomainReader {
  readonly target: HostTarget;
  readonly driverType: LibvirtDriverType;
  /** How guests are to be defined here; asked of the host once. */
  readonly platform: (call: Call) => Promise<GuestPlatform>;
}

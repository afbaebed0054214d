import {
  CAPABILITIES,
  type Capability,
  type DriverName,
  type Firmware,
  GUEST_TYPES,
  type GuestType,
  type HostDriver,
  HYPERVISORS,
  type Hypervisor,
} from "./hypervisor.ts";

/** What each ability means to a user: for the API and for docs/capabilities.md. */
export const CAPABILITY_DESCRIPTIONS: Readonly<Record<Capability, string>> = {
  start: "start a VM",
  stop: "cut a VM's power and remove it",
  gracefulStop: "ask the guest to power off",
  reboot: "ask the guest to restart",
  reset: "restart the machine, whatever the guest does",
  pause: "pause and resume",
  save: "keep memory on disk while it is off, and go on from there",
  consoleLog: "read the serial console's log",
  serialConsole: "type into the serial console and read its answers",
  vnc: "look at the screen and type into it",
  screenshot: "take a picture of the screen",
  volumes: "create, fill, grow, list and delete volumes",
  diskHotplug: "attach, detach and grow disks while the guest runs",
  volumeDownload: "give out the content of volumes",
  directKernel: "boot a kernel and initrd that are given",
  firmwareBios: "boot from a disk by BIOS",
  firmwareUefi: "boot from a disk by UEFI",
  firmwarePvgrub: "boot from a disk by GRUB for Xen, inside the guest",
  networks: "make networks, give addresses out by DHCP, and remove networks",
  nicHotplug: "plug network interfaces in and out while the guest runs",
  guestAgent: "see whether an agent runs in the guest, and ask it for host name, system and addresses",
  events: "the host tells of changes by itself",
};

const BY_FIRMWARE: Readonly<Record<Firmware, Capability>> = {
  bios: "firmwareBios",
  uefi: "firmwareUefi",
  pvgrub: "firmwarePvgrub",
};

/** The ability that booting by a firmware takes; null: a kernel is given. */
export function bootCapability(firmware: Firmware | null): Capability {
  return firmware === null ? "directKernel" : BY_FIRMWARE[firmware];
}

/** What a driver declares for one kind of guest. */
export interface DeclaredGuestType {
  readonly driver: DriverName;
  readonly schemes: readonly string[];
  readonly hypervisor: Hypervisor;
  readonly guestType: GuestType;
  /** In the order of CAPABILITIES. */
  readonly capabilities: readonly Capability[];
}

/** The kinds of guests that these drivers run, with what each can do for them at best. */
export function declaredBy(drivers: readonly HostDriver[]): readonly DeclaredGuestType[] {
  return drivers.flatMap((driver) =>
    HYPERVISORS.flatMap((hypervisor) =>
      GUEST_TYPES.flatMap((guestType) => {
        const declared = driver.declares(hypervisor, guestType);
        if (declared.size === 0) return [];
        const capabilities = CAPABILITIES.filter((capability) => declared.has(capability));
        return [{ driver: driver.name, schemes: driver.schemes, hypervisor, guestType, capabilities }];
      }),
    ),
  );
}

import type { GuestType } from "../hypervisor.ts";

/**
 * GRUB for Xen, where Debian's grub-xen-host puts it. It is a kernel of Xen's: it runs inside the guest with the guest's
 * rights, reads the guest's disks there, and nothing of what they hold is looked at by the host.
 */
export const PVGRUB_PATHS: Readonly<Record<Exclude<GuestType, "hvm">, string>> = {
  pv: "/usr/lib/grub-xen/grub-x86_64-xen.bin",
  pvh: "/usr/lib/grub-xen/grub-i386-xen_pvh.bin",
};

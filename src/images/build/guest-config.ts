/**
 * The files that make a Debian tree the disk of a VM, on KVM and on Xen alike. Pure. Nothing that one guest should have
 * for itself is among them: no host name, no password, no key.
 */

export interface GuestOptions {
  /** Of the root file system. */
  readonly rootUuid: string;
  /** As in /boot/vmlinuz-VERSION. */
  readonly kernelVersion: string;
  readonly cloudInit: boolean;
}

export interface GuestFile {
  /** Below the root of the tree. */
  readonly path: string;
  readonly content: string;
  readonly isProgram?: boolean;
}

/** Packages of every image: a system that boots, and what its first administrator misses else. */
export const BASE_PACKAGES: readonly string[] = [
  ...["systemd-sysv", "systemd-resolved", "udev", "dbus", "kmod", "initramfs-tools", "zstd"],
  // Not the kernel for clouds: that one is packed with LZ4, which GRUB for Xen cannot unpack.
  ...["linux-image-amd64", "grub-pc"],
  ...["e2fsprogs", "iproute2", "iputils-ping", "procps", "less", "ca-certificates"],
];

export const CLOUD_PACKAGES: readonly string[] = [
  ...["cloud-init", "cloud-guest-utils", "openssh-server", "sudo", "netbase"],
];

/**
 * KVM's serial port and Xen's console. A login appears on each that there is: systemd asks the kernel for them. The last
 * one has what systemd itself writes: a pv or pvh guest believes in a serial port that is none, so there Xen's is it.
 */
const CONSOLE_MENU = `set drover_consoles="console=tty0 console=hvc0 console=ttyS0,115200"
if [ "$grub_platform" = "xen" -o "$grub_platform" = "xen_pvh" ]; then
  set drover_consoles="console=tty0 console=hvc0"
fi
export drover_consoles
`;

/** Its output goes to the beginning of the menu that update-grub writes. */
const CONSOLE_SCRIPT = `#!/bin/sh
cat <<'END'
${CONSOLE_MENU}END
`;

/** Read by update-grub, when the guest gets another kernel. It is GRUB itself that puts the consoles in. */
const GRUB_DEFAULTS = `GRUB_TIMEOUT=1
GRUB_TERMINAL=console
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX='$drover_consoles'
`;

// On a busy host a guest takes longer than the usual 90 s to see its own devices, and a console that is seen too late has
// no login for good.
const DEVICE_PATIENCE = `[Manager]
DefaultDeviceTimeoutSec=10min
`;

// The name servers of DHCP are known to systemd-resolved. Without a network a guest shall not wait for one for minutes.
const WAIT_ONLINE = `[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=30
`;

const DHCP_EVERYWHERE = `[Match]
Type=ether

[Network]
DHCP=yes
`;

/** The sources.list of the image is right as it is, and no other locale is there; cloud-init would choose its own. */
const CLOUD_CONFIG = `datasource_list: [NoCloud, None]
locale: C.UTF-8
apt:
  preserve_sources_list: true
system_info:
  network:
    renderers: [networkd]
`;

// Keys are made by the guest at its first boot: in the image they would be everybody's.
const SSH_KEYS = `[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
`;

const HOSTS = `127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
`;

/** For debconf: GRUB's first stage is on no disk that the package knows, and its upgrades leave it alone. */
export const GRUB_ANSWERS = `grub-pc grub-pc/install_devices multiselect
grub-pc grub-pc/install_devices_empty boolean true
`;

/** What grub-mkimage takes: the partition is the first one of the disk that the BIOS booted. */
export const GRUB_CORE_ARGS: readonly string[] = [
  ...["-O", "i386-pc", "-p", "(,msdos1)/boot/grub"],
  ...["biosdisk", "part_msdos", "ext2"],
];

/** Features of the file system that GRUB 2.06 and the kernels of all suites know, whatever mke2fs is used. */
export const MKE2FS_CONF = `[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
blocksize = 4096
inode_size = 256
inode_ratio = 16384

[fs_types]
ext4 = {
  features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
`;

/** The boot menu, for GRUB and GRUB for Xen; update-grub writes it anew. */
function bootMenu({ rootUuid, kernelVersion }: GuestOptions): string {
  return `${CONSOLE_MENU}set default=0
set timeout=1
search --no-floppy --fs-uuid --set=root ${rootUuid}
menuentry 'Debian GNU/Linux' {
  search --no-floppy --fs-uuid --set=root ${rootUuid}
  linux /boot/vmlinuz-${kernelVersion} root=UUID=${rootUuid} ro $drover_consoles
  initrd /boot/initrd.img-${kernelVersion}
}
`;
}

/** The files of a guest; they replace what the tree has in their places. */
export function guestFiles(options: GuestOptions): GuestFile[] {
  return [
    { path: "etc/fstab", content: `UUID=${options.rootUuid} / ext4 errors=remount-ro 0 1\n` },
    { path: "etc/hosts", content: HOSTS },
    // Empty: made at the first boot, without asking anybody.
    { path: "etc/machine-id", content: "" },
    { path: "etc/default/grub.d/drover.cfg", content: GRUB_DEFAULTS },
    { path: "etc/grub.d/01_drover", content: CONSOLE_SCRIPT, isProgram: true },
    { path: "boot/grub/grub.cfg", content: bootMenu(options) },
    { path: "etc/systemd/system.conf.d/drover.conf", content: DEVICE_PATIENCE },
    { path: "etc/systemd/system/ssh.service.d/host-keys.conf", content: SSH_KEYS },
    { path: "etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf", content: WAIT_ONLINE },
    options.cloudInit
      ? { path: "etc/cloud/cloud.cfg.d/90-drover.cfg", content: CLOUD_CONFIG }
      : { path: "etc/systemd/network/80-dhcp.network", content: DHCP_EVERYWHERE },
  ];
}

/** What packages leave behind that belongs to one machine: below the root of the tree. */
export const LEFTOVERS: readonly string[] = [
  "etc/hostname",
  "var/lib/dbus/machine-id",
  "var/lib/systemd/random-seed",
  "vmlinuz.old",
  "initrd.img.old",
];

/** The newest kernel among the names in /boot; null: there is none. */
export function kernelVersionIn(names: readonly string[]): string | null {
  const versions = names.flatMap((name) => /^vmlinuz-(\d[A-Za-z0-9.+~-]*)$/.exec(name)?.[1] ?? []);
  const order = new Intl.Collator("en", { numeric: true });
  return versions.sort((a, b) => order.compare(a, b)).at(-1) ?? null;
}

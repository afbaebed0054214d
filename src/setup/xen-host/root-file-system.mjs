// Makes the root file system of dom0 from Debian packages.
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../run-program.mjs";
import { debianSources, fetchSettings } from "./debian-mirrors.mjs";

// linux-image-amd64, not the cloud flavour: that one cannot be dom0.
const PACKAGES = [
  ...["systemd-sysv", "udev", "dbus", "openssh-server", "iproute2", "kmod", "procps", "ca-certificates"],
  ...["linux-image-amd64", "busybox-static", "xen-utils-common", "xenstore-utils"],
  // The device model, and firmware for guests with hardware virtualization.
  ...["qemu-system-xen", "qemu-utils", "seabios", "ipxe-qemu"],
  ...["grub-xen-host", "bridge-utils", "lvm2", "e2fsprogs", "util-linux"],
];

// Kernel modules that no emulated machine needs: a smaller image, and a quicker boot.
const UNUSED_DRIVERS = [
  ...["gpu", "media", "net/ethernet", "net/wireless", "infiniband", "staging", "ata", "watchdog", "input"],
  ...["hid", "usb", "mfd", "i2c", "hwmon", "iio", "bluetooth", "cpufreq", "edac", "mmc", "thunderbolt"],
  ...["isdn", "leds", "nvme", "platform", "power", "firewire", "parport", "pcmcia", "comedi", "rtc", "scsi"],
  ...["message", "net/can", "net/usb", "target", "crypto", "ntb", "vfio", "soundwire", "mtd", "ufs", "nfc"],
];
const UNUSED_MODULES = [
  ...UNUSED_DRIVERS.map((name) => `drivers/${name}`),
  ...["net/wireless", "net/mac80211", "net/bluetooth", "sound"],
  ...["btrfs", "xfs", "ocfs2", "gfs2", "nfs", "nfsd", "ceph", "smb", "cifs", "f2fs"].map((n) => `fs/${n}`),
];
const UNUSED_FILES = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

// Nothing is started in it, and the initrd Debian makes is not used: ours is smaller.
const BEFORE_PACKAGES = `#!/bin/sh -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nBUSYBOX=n\\nFSTYPE=ext4\\nCOMPRESS=gzip\\n' >"$1/etc/initramfs-tools/conf.d/drover"
printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
`;

// When we are killed everything it has started is, and what it has mounted is gone: the directory may be removed then.
const CONFINED = [
  ...["setpriv", "--pdeathsig", "KILL"],
  ...["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap"],
];

/**
 * Needs root and the package mmdebstrap.
 * @param {object} options
 * @param {import("./flavours.mjs").XenVersion} options.version
 * @param {string} options.suite Debian release
 * @param {string} options.workDir for scratch files
 * @param {string} options.root the directory that is made
 */
export async function makeRootFileSystem({ version, suite, workDir, root }) {
  const hook = join(workDir, "before-packages");
  writeFileSync(hook, BEFORE_PACKAGES);
  chmodSync(hook, 0o755);
  const packages = [...PACKAGES, `xen-hypervisor-${version}-amd64`, `xen-utils-${version}`];
  const excluded = [...UNUSED_MODULES.map((path) => `/lib/modules/*/kernel/${path}/*`), ...UNUSED_FILES];
  const settings = ['APT::Install-Recommends "false";', ...(await fetchSettings())];
  const [program = "", ...args] = [
    ...CONFINED,
    "--quiet",
    "--variant=minbase",
    "--mode=root",
    `--include=${packages.join(",")}`,
    ...settings.map((line) => `--aptopt=${line}`),
    ...excluded.map((path) => `--dpkgopt=path-exclude=${path}`),
    // Where /lib is a link to /usr/lib already, that is how packages name their files.
    ...excluded
      .filter((path) => path.startsWith("/lib/"))
      .map((path) => `--dpkgopt=path-exclude=/usr${path}`),
    `--essential-hook=${hook}`,
    suite,
    root,
    ...(await debianSources(suite)),
  ];
  await run(program, args, { env: { ...process.env, LC_ALL: "C.UTF-8", TMPDIR: workDir } });
}

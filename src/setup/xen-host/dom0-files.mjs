// What makes a Debian with Xen's packages a host that Drover can drive: an administrator's settings, and what keeps an
// emulated machine small and quick.

/** @typedef {{ path: string, content: string, mode?: number }} ConfigFile */

/** dom0's address, and the first one its guests get by DHCP. */
export const DOM0_ADDRESS = "10.0.2.15";
export const FIRST_GUEST_ADDRESS = "10.0.2.50";

const HOST_NAME = "xen-rig";

// dom0's NIC is a port of the bridge, as on any Xen host whose guests are on its network.
const NETWORK = [
  {
    path: "etc/systemd/network/10-xenbr0.netdev",
    content: `[NetDev]
Name=xenbr0
Kind=bridge
MACAddress=52:54:00:12:34:00
[Bridge]
ForwardDelaySec=0
STP=no
`,
  },
  { path: "etc/systemd/network/20-eth0.network", content: "[Match]\nName=eth0\n[Network]\nBridge=xenbr0\n" },
  {
    path: "etc/systemd/network/30-xenbr0.network",
    content: `[Match]
Name=xenbr0
[Network]
Address=${DOM0_ADDRESS}/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes
`,
  },
];

const XEN = [
  { path: "etc/xen/xl.conf", content: 'autoballoon="off"\nvif.default.bridge="xenbr0"\nclaim_mode=1\n' },
  {
    path: "etc/modules-load.d/xen.conf",
    content: [
      ...["xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs", "xen-blkback", "xen-netback"],
      ...["loop", "tun", "bridge", ""],
    ].join("\n"),
  },
];

const SMALL = [
  {
    path: "etc/systemd/journald.conf.d/rig.conf",
    content: "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n",
  },
  {
    path: "etc/systemd/system.conf.d/rig.conf",
    content: "[Manager]\nDefaultTimeoutStartSec=300s\nDefaultTimeoutStopSec=20s\n",
  },
  // The post-quantum key exchange OpenSSH prefers takes seconds in an emulated machine. All else is Debian's default.
  {
    path: "etc/ssh/sshd_config.d/rig.conf",
    content: "KexAlgorithms curve25519-sha256\nPasswordAuthentication no\n",
  },
];

/**
 * @param {{ authorizedKey: string, hostKey: { private: string, public: string }, machineId: string }} identity machineId:
 *   32 hexadecimal digits
 * @returns {ConfigFile[]} paths are relative to dom0's root
 */
export function dom0Files({ authorizedKey, hostKey, machineId }) {
  return [
    { path: "etc/hostname", content: `${HOST_NAME}\n` },
    { path: "etc/hosts", content: `127.0.0.1 localhost\n127.0.1.1 ${HOST_NAME}\n` },
    { path: "etc/machine-id", content: `${machineId}\n` },
    { path: "etc/fstab", content: "/dev/vda / ext4 defaults,noatime 0 0\n" },
    { path: "etc/resolv.conf", content: "" },
    { path: "root/.ssh/authorized_keys", content: authorizedKey, mode: 0o600 },
    { path: "etc/ssh/ssh_host_ed25519_key", content: hostKey.private, mode: 0o600 },
    { path: "etc/ssh/ssh_host_ed25519_key.pub", content: hostKey.public },
    ...NETWORK,
    ...XEN,
    ...SMALL,
  ];
}

/** What xenconsoled expects and Debian's packages do not make. */
export const CONSOLE_LOG_DIR = "var/log/xen/console";

/** Units that run in dom0 beyond those Debian's packages enable. */
export const ENABLED_UNITS = Object.freeze(["systemd-networkd.service", "ssh.service"]);

/** Units that only cost time: nothing periodic, nothing for people at a keyboard. */
export const MASKED_UNITS = Object.freeze([
  ...["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service"],
  ...["fstrim.timer", "man-db.timer", "dpkg-db-backup.timer", "systemd-tmpfiles-clean.timer"],
  ...["systemd-networkd-wait-online.service", "systemd-resolved.service", "systemd-timesyncd.service"],
  ...["systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "ldconfig.service"],
  ...["systemd-journal-catalog-update.service", "systemd-hwdb-update.service", "systemd-firstboot.service"],
  ...["systemd-machine-id-commit.service", "keyboard-setup.service", "console-setup.service"],
  ...["systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase-initrd.service"],
  ...["lvm2-monitor.service", "lvm2-lvmpolld.socket", "blk-availability.service", "getty@tty1.service"],
]);

/** Settings in files of Debian's own: which line, and what it becomes; it is added where there is none. */
export const EDITED_SETTINGS = Object.freeze([
  // Keeps what guests write on their consoles. Debian's init script knows this setting only, whatever the file says.
  { path: "etc/default/xen", line: /^XENCONSOLED_ARGS=.*$/m, becomes: "XENCONSOLED_ARGS=--log=guest" },
  // Guests are not saved when the host goes down, nor started when it comes up: Drover says which run.
  { path: "etc/default/xendomains", line: /^XENDOMAINS_RESTORE=.*$/m, becomes: "XENDOMAINS_RESTORE=false" },
  { path: "etc/default/xendomains", line: /^XENDOMAINS_SAVE=.*$/m, becomes: "XENDOMAINS_SAVE=" },
]);

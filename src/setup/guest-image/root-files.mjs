// The userspace of the small guest: busybox and nine scripts.

/** Kernel modules the guest loads, as far as its kernel does not have them built in. */
export const GUEST_MODULES = Object.freeze([
  "virtio_pci",
  "virtio_blk",
  "virtio_net",
  "virtio_console",
  "virtio_rng",
  "virtio_balloon",
  "xen_blkfront",
  "xen_netfront",
  "evdev",
  "button",
]);

// The serial port under QEMU, Xen's console under Xen: whichever the kernel uses, of those on its command line.
const CONSOLE = "/dev/guest-console";

/** What it takes to read a CD-ROM; loaded only where there is one. */
export const CDROM_MODULES = Object.freeze(["virtio_scsi", "sr_mod", "isofs"]);

const SHUTDOWN = `#!/bin/sh
# Called by the ACPI power button (off), by ctrl-alt-del (reboot), and by the kernel where Xen's toolstack asks for one.
echo "DROVER-GUEST-DOWN" >${CONSOLE}
sync
case "$1" in reboot) /bin/reboot -f;; *) /bin/poweroff -f;; esac
`;

const INIT = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
ln -s "/dev/$(sed 's/.* //' /sys/class/tty/console/active)" ${CONSOLE}
echo "DROVER-GUEST-UP boot=$(cat /proc/sys/kernel/random/boot_id)" >${CONSOLE}
for module in $(cat /lib/modules/order); do insmod "/lib/modules/$module.ko"; done
hostname guest
/etc/seed
ip link set lo up
/etc/fill </dev/null &
/etc/network-watch >/dev/null 2>&1 </dev/null &
/etc/agent >/dev/null 2>&1 </dev/null &
/etc/disk-watch >/dev/null 2>&1 </dev/null &
`;

// The seed that cloud-init would read: instance id, host name, and what the other files are, in the words of sha256sum.
// 0x1048 is a virtio-scsi controller, which the guest has for its CD-ROM alone; the label of a CD-ROM is at byte 32808.
const SEED = `#!/bin/sh
grep -qsx 0x1048 /sys/bus/pci/devices/*/device || exit 0
for module in $(cat /lib/modules/cdrom-order); do
  [ -d "/sys/module/$module" ] || insmod "/lib/modules/$module.ko"
done
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sr0 ] && break; sleep 1; done
mkdir -p /seed
label=$(dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null | tr -d ' ')
[ "$label" = cidata ] && mount -t iso9660 -o ro /dev/sr0 /seed || exit 0
field() { sed -n "s/^ *\\"$1\\": \\"\\([^\\"]*\\)\\".*/\\1/p" /seed/meta-data; }
echo "DROVER-SEED $(field instance-id) $(field local-hostname)" >/dev/ttyS0
(cd /seed && sha256sum *) | sed 's/^/DROVER-SEED-FILE /' >/dev/ttyS0
touch /seed/written 2>/dev/null && echo "DROVER-SEED-WRITABLE" >/dev/ttyS0
umount /seed
`;

// Each eth* gets a DHCP client of its own, one that is plugged in later too.
const NETWORK_WATCH = `#!/bin/sh
while :; do
  for path in /sys/class/net/eth*; do
    nic=\${path##*/}
    [ -e "$path" ] || continue
    [ -e "/run/udhcpc.$nic" ] && [ -d "/proc/$(cat "/run/udhcpc.$nic")" ] && continue
    ip link set "$nic" up
    udhcpc -i "$nic" -p "/run/udhcpc.$nic" -s /etc/udhcpc -t 20 -T 1 -A 2 -b -S
  done
  sleep 1
done
`;

// QEMU's agent as far as the tests ask for it, where the command line has drover.agent=answering; silent reads what it is
// told and says nothing. Where it is asked for, the byte 0xff goes before an answer.
const AGENT = `#!/bin/sh
kind=$(sed -n 's/.*drover\\.agent=\\([a-z]*\\).*/\\1/p' /proc/cmdline)
[ -n "$kind" ] || exit 0
for try in 1 2 3 4 5 6 7 8 9 10; do
  name=$(grep -lsx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name) && break
  sleep 1
done
port=\${name%/name}
exec 3<>"/dev/\${port##*/}"
# Nothing is to be read either as long as libvirt has not connected: the port is kept open until it does.
while :; do
  read -r line <&3 || { sleep 1; continue; }
  [ "$kind" = answering ] || continue
  case "$line" in
    *guest-sync*)
      case "$line" in *delimited*) printf '\\377' >&3;; esac
      printf '{"return": %s}\\n' "$(echo "$line" | sed 's/.*"id" *: *\\([0-9]*\\).*/\\1/')" >&3
      ;;
    *guest-get-host-name*) printf '{"return": {"host-name": "%s"}}\\n' "$(hostname)" >&3;;
    *guest-network-get-interfaces*)
      mac=$(cat /sys/class/net/eth0/address)
      ip=$(ip -4 -o addr show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')
      addresses=$(printf '[{"ip-address": "%s"}]' "$ip")
      printf '{"return": [{"name": "eth0", "hardware-address": "%s", "ip-addresses": %s}]}\\n' "$mac" "$addresses" >&3
      ;;
    *) echo '{"error": {"class": "CommandNotFound", "desc": "The command has not been found"}}' >&3;;
  esac
done
`;

// Writes 64 MiB to the disk that the kernel's command line names as drover.fill=vdb, and says when they are written.
const FILL = `#!/bin/sh
disk=$(sed -n 's/.*drover[.]fill=\\([a-z]*\\).*/\\1/p' /proc/cmdline)
[ -n "$disk" ] || exit 0
echo "DROVER-GUEST-FILLS $disk" >${CONSOLE}
dd if=/dev/zero of=/dev/$disk bs=1M count=64 >/dev/null 2>&1 && sync
echo "DROVER-GUEST-FILLED $disk $?" >${CONSOLE}
`;

// Which disks there are, by name, serial and size in sectors: told anew at every change. Without a program per look.
const DISK_WATCH = `#!/bin/sh
seen=
while :; do
  now=
  for path in /sys/block/vd*; do
    size= serial=
    read -r size <"$path/size" || continue
    read -r serial <"$path/serial"
    now="$now \${path##*/}=$serial:$size"
  done
  [ "$now" = "$seen" ] || echo "DROVER-GUEST-DISKS$now." >${CONSOLE}
  seen=$now
  sleep 1
done
`;

const UDHCPC = `#!/bin/sh
case "$1" in
  deconfig)
    ip addr flush dev "$interface"
    ip link set "$interface" up
    ;;
  bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/\${mask:-24}" dev "$interface"
    [ -n "$router" ] && ip route replace default via "\${router%% *}" dev "$interface"
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    [ "$1" = bound ] && echo "DROVER-GUEST-IP $interface $ip" >${CONSOLE}
    ;;
esac
`;

const INITTAB = `::sysinit:/etc/init
::respawn:/bin/acpid -f -l /dev/null
::ctrlaltdel:/sbin/shutdown reboot
${CONSOLE.replace("/dev/", "")}::askfirst:-/bin/sh
tty1::askfirst:-/bin/sh
`;

/**
 * @typedef {import("./cpio.mjs").ArchiveEntry} ArchiveEntry
 * @typedef {{ name: string, content: Uint8Array }} GuestModule
 * @param {{ busybox: Uint8Array, applets: readonly string[], modules: readonly GuestModule[], cdromModules: readonly GuestModule[] }} parts
 *   modules: in load order, those for a CD-ROM apart
 * @returns {ArchiveEntry[]} everything in the initramfs
 */
export function rootFiles({ busybox, applets, modules, cdromModules }) {
  const files = new Map([...modules, ...cdromModules].map((module) => [module.name, module]));
  const directories = [
    "bin",
    "sbin",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "lib",
    "lib/modules",
    "dev",
    "proc",
    "sys",
  ];
  return [
    ...[...directories, "run", "tmp", "root"].map((path) => directory(path)),
    file("bin/busybox", busybox, 0o755),
    ...applets.filter((name) => name !== "busybox").map((name) => link(`bin/${name}`, "busybox")),
    link("init", "bin/busybox"),
    file("sbin/shutdown", SHUTDOWN, 0o755),
    // What the kernel runs where Xen's toolstack asks for a shutdown or a reboot.
    file("sbin/poweroff", "#!/bin/sh\nexec /sbin/shutdown off\n", 0o755),
    file("sbin/reboot", "#!/bin/sh\nexec /sbin/shutdown reboot\n", 0o755),
    file("etc/init", INIT, 0o755),
    file("etc/network-watch", NETWORK_WATCH, 0o755),
    file("etc/agent", AGENT, 0o755),
    file("etc/disk-watch", DISK_WATCH, 0o755),
    file("etc/fill", FILL, 0o755),
    file("etc/seed", SEED, 0o755),
    file("etc/udhcpc", UDHCPC, 0o755),
    file("etc/inittab", INITTAB),
    file("etc/passwd", "root::0:0:root:/root:/bin/sh\n"),
    file("etc/group", "root:x:0:\n"),
    // acpid runs what is named after the event: type PWRF (power button), code 80.
    file("etc/acpi/PWRF/00000080", "#!/bin/sh\nexec /sbin/shutdown off\n", 0o755),
    file("lib/modules/order", modules.map(({ name }) => `${name}\n`).join("")),
    file("lib/modules/cdrom-order", cdromModules.map(({ name }) => `${name}\n`).join("")),
    ...[...files.values()].map(({ name, content }) => file(`lib/modules/${name}.ko`, content)),
  ];
}

/**
 * @param {string} path
 * @returns {ArchiveEntry}
 */
function directory(path) {
  return { path, kind: "directory", mode: 0o755 };
}

/**
 * @param {string} path
 * @param {Uint8Array | string} content
 * @returns {ArchiveEntry}
 */
function file(path, content, mode = 0o644) {
  return { path, kind: "file", mode, content };
}

/**
 * @param {string} path
 * @param {string} target
 * @returns {ArchiveEntry}
 */
function link(path, target) {
  return { path, kind: "link", target };
}

// The initramfs of dom0: loads what the disk takes, mounts it, hands over to systemd.

/** Kernel modules for the root file system, as far as the kernel does not have them built in. */
export const DOM0_BOOT_MODULES = Object.freeze(["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"]);

const INIT = `#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
for module in $(cat /lib/modules/order); do insmod "/lib/modules/$module.ko"; done
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 -o noatime /dev/vda /mnt
mount -o move /dev /mnt/dev
exec switch_root /mnt /sbin/init
`;

/**
 * @param {{ busybox: Uint8Array, modules: readonly { name: string, content: Uint8Array }[] }} parts modules: in load order
 * @returns {import("../guest-image/cpio.mjs").ArchiveEntry[]}
 */
export function dom0InitrdFiles({ busybox, modules }) {
  const applets = ["sh", "mount", "insmod", "sleep", "cat", "switch_root"];
  return [
    ...["bin", "dev", "mnt", "lib", "lib/modules"].map((path) => ({
      path,
      kind: /** @type {const} */ ("directory"),
      mode: 0o755,
    })),
    { path: "bin/busybox", kind: "file", mode: 0o755, content: busybox },
    ...applets.map((name) => ({
      path: `bin/${name}`,
      kind: /** @type {const} */ ("link"),
      target: "busybox",
    })),
    { path: "init", kind: "file", mode: 0o755, content: INIT },
    {
      path: "lib/modules/order",
      kind: "file",
      mode: 0o644,
      content: modules.map(({ name }) => `${name}\n`).join(""),
    },
    ...modules.map(({ name, content }) => ({
      path: `lib/modules/${name}.ko`,
      kind: /** @type {const} */ ("file"),
      mode: 0o644,
      content,
    })),
  ];
}

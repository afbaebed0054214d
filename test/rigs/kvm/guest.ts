import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../../src/setup/guest-image.mjs";
import { POOL_PATH } from "../../../src/setup/private-libvirt/layout.mjs";
import { waitUntil } from "../../../src/setup/processes.mjs";
import type { KvmHost } from "./kvm-host.ts";

/** How a guest of the rig is booted: from the disk's GRUB, or from kernel and initrd without a disk. */
export type GuestBoot = "disk" | "kernel";

/** What running a guest takes of a host. */
export type GuestHost = Pick<KvmHost, "dir" | "poolDir" | "virsh">;

const GUEST_MEMORY_MIB = 128;

/** Defines and starts the small guest on a host, with one NIC on network `default`. */
export async function startGuest(host: GuestHost, name: string, boot: GuestBoot): Promise<void> {
  const image = await buildGuestImage();
  const put = (from: string, file: string): string => {
    copyFileSync(from, join(host.poolDir, file));
    return `${POOL_PATH}/${file}`;
  };
  const how =
    boot === "disk"
      ? { os: "", disk: diskXml(put(image.disk, `${name}.qcow2`)) }
      : {
          os: kernelXml(put(image.kernel, `${name}-vmlinuz`), put(image.initrd, `${name}-initrd`)),
          disk: "",
        };
  await host.virsh(["define", writeXml(host, name, domainXml(name, how))]);
  await host.virsh(["start", name]);
}

/** Everything a guest has written on its serial console. */
function serialLog(host: GuestHost, name: string): string {
  const file = join(host.dir, "log/qemu", `${name}-serial.log`);
  return existsSync(file) ? readFileSync(file, "latin1") : "";
}

/** Waits until a guest has written something on its serial console; the bound is for a busy machine. */
export async function waitForSerial(
  host: GuestHost,
  name: string,
  pattern: RegExp,
): Promise<RegExpExecArray> {
  const find = (): RegExpExecArray | null => pattern.exec(serialLog(host, name));
  await waitUntil(`${name} writes ${String(pattern)}`, () => find() !== null, {
    timeoutSeconds: 120,
    intervalMs: 100,
  });
  const found = find();
  if (found === null) throw new Error(`the serial log of ${name} was cut`);
  return found;
}

function writeXml(host: GuestHost, name: string, xml: string): string {
  const file = join(host.dir, `${name}.xml`);
  writeFileSync(file, xml);
  return file;
}

function kernelXml(kernel: string, initrd: string): string {
  return `<kernel>${kernel}</kernel><initrd>${initrd}</initrd><cmdline>${GUEST_KERNEL_ARGS}</cmdline>`;
}

function diskXml(path: string): string {
  const target = '<target dev="vda" bus="virtio"/>';
  return `<disk type="file"><driver name="qemu" type="qcow2"/><source file="${path}"/>${target}</disk>`;
}

function domainXml(name: string, how: { os: string; disk: string }): string {
  const log = `/var/log/libvirt/qemu/${name}-serial.log`;
  return `<domain type="qemu">
    <name>${name}</name><memory unit="MiB">${String(GUEST_MEMORY_MIB)}</memory><vcpu>1</vcpu>
    <os><type arch="x86_64" machine="q35">hvm</type>${how.os}</os>
    <features><acpi/><apic/></features>
    <devices>
      ${how.disk}
      <interface type="network"><source network="default"/><model type="virtio"/></interface>
      <serial type="pty"><log file="${log}" append="on"/></serial>
      <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
    </devices>
  </domain>`;
}

import { createReadStream, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Call, HostConnection, HostTarget, VolumeRef } from "../../src/hypervisors/hypervisor.ts";
import { libvirtDriver } from "../../src/hypervisors/libvirt/driver.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../src/setup/guest-image.mjs";
import type { KvmHost } from "../rigs/kvm/kvm-host.ts";
import { foreignDomainXml } from "./libvirt-foreign.ts";
import type { ContractHooks, ContractWorld } from "./suite.ts";

/** A small pool of its own, in memory, so that a test can fill it. */
const POOL = "contract";
const POOL_PATH = "/var/lib/libvirt/contract";
const POOL_MIB = 160;

const KERNEL: VolumeRef = { pool: POOL, name: "vmlinuz" };
const INITRD: VolumeRef = { pool: POOL, name: "initrd" };

/**
 * Of one boot, from its id to its first lease: the guest says UP before it has loaded the driver of its power button.
 */
export const BOOT_MARKER = /DROVER-GUEST-UP boot=[0-9a-f-]{36}[^]*?DROVER-GUEST-IP eth0 [\d.]+/;

export const call: Call = {
  signal: new AbortController().signal,
  timeoutMs: 120_000,
  beforeSend: () => undefined,
};

export function targetOf(uri: string): HostTarget {
  return { uri, credentials: {}, accelerator: "auto", installationId: newId<InstallationId>() };
}

/** Makes the pool and puts the small guest's kernel and initrd into it, through the driver. */
export async function qemuWorld(host: KvmHost): Promise<ContractWorld> {
  await makePool(host);
  const target = targetOf(host.uri);
  const connection = await libvirtDriver.connect(target, call);
  try {
    const image = await buildGuestImage();
    await put(connection, KERNEL, image.kernel);
    await put(connection, INITRD, image.initrd);
  } finally {
    await connection.close();
  }
  return {
    driver: libvirtDriver,
    target,
    // libvirtd and QEMU have a network of their own: over its socket we are not on their loopback, over ssh we are.
    ...(host.sshUri === undefined
      ? {}
      : { screenTarget: { ...target, uri: host.sshUri, credentials: sshOf(host) } }),
    pool: POOL,
    network: "default",
    memoryMib: 128,
    kernel: { kernel: KERNEL, initrd: INITRD, commandLine: GUEST_KERNEL_ARGS },
    bootMarker: BOOT_MARKER,
    patienceMs: 180_000,
    tearDown: async () => undefined,
  };
}

function sshOf({ credentials }: KvmHost): HostTarget["credentials"] {
  return credentials.ssh === undefined ? {} : { ssh: credentials.ssh };
}

async function makePool(host: KvmHost): Promise<void> {
  await host.exec("mkdir", ["-p", POOL_PATH]);
  await host.exec("mount", ["-t", "tmpfs", "-o", `size=${POOL_MIB}m`, "tmpfs", POOL_PATH]);
  await host.virsh(["pool-define-as", POOL, "dir", "--target", POOL_PATH]);
  await host.virsh(["pool-start", POOL]);
}

/** Writes a file of this machine into a new volume. */
async function put(connection: HostConnection, ref: VolumeRef, file: string): Promise<void> {
  const sizeBytes = statSync(file).size;
  await connection.volumes?.createVolume({ ...ref, format: "raw", capacityBytes: sizeBytes }, call);
  await connection.volumes?.uploadVolume(ref, createReadStream(file), sizeBytes, call);
}

export function qemuHooks(host: () => KvmHost): ContractHooks {
  return {
    addForeignDomain: async (_world, mark) => {
      const { uuid, xml } = foreignDomainXml("qemu", mark);
      const file = join(host().dir, `${uuid}.xml`);
      writeFileSync(file, xml);
      await host().virsh(["define", file]);
      rmSync(file);
      return uuid;
    },
    removeForeignDomain: async (_world, uuid) => {
      await host().virsh(["undefine", uuid]);
    },
    cutDomainPower: async (_world, uuid) => {
      await host().virsh(["destroy", uuid]);
    },
    crashDomain: async (_world, uuid) => {
      process.kill(host().qemuPid(await host().virsh(["domname", uuid])), "SIGKILL");
    },
    // Without the input devices' driver the guest's acpid hears nothing of the power button.
    deafen: async ({ kernel }, spec, connection) => {
      if (kernel === null) throw new Error("the guest of this world boots from a kernel");
      const commandLine = `${kernel.commandLine} initcall_blacklist=evdev_init`;
      await connection.defineDomain({ ...spec, boot: { kind: "kernel", ...kernel, commandLine } }, call);
    },
    giveAgent: async ({ kernel }, spec, connection, agent) => {
      if (kernel === null) throw new Error("the guest of this world boots from a kernel");
      const commandLine = `${kernel.commandLine} drover.agent=${agent}`;
      await connection.defineDomain({ ...spec, boot: { kind: "kernel", ...kernel, commandLine } }, call);
    },
    breakConnections: async () => {
      await host().stopLibvirtd("SIGKILL");
      await host().startLibvirtd();
    },
    hang: async () => {
      host().pauseLibvirtd();
      return async () => {
        host().continueLibvirtd();
      };
    },
    fillPool: async () => {
      const file = join(POOL_PATH, "filler");
      await host().exec("sh", ["-c", 'cat /dev/zero >"$1" 2>/dev/null; test -s "$1"', "sh", file]);
      return async () => {
        await host().exec("rm", [file]);
      };
    },
    digestOfVolume: async (_world, ref, bytes) => {
      const file = join(POOL_PATH, basename(ref.name));
      const line = await host().exec("sh", [
        "-c",
        'head -c "$1" "$2" | sha256sum',
        "sh",
        String(bytes),
        file,
      ]);
      return line.split(" ")[0] ?? "";
    },
  };
}

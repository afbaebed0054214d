import { createReadStream, statSync } from "node:fs";
import { Readable } from "node:stream";
import type {
  Call,
  Capability,
  GuestType,
  HostConnection,
  HostTarget,
  VolumeRef,
} from "../../src/hypervisors/hypervisor.ts";
import { xlDriver } from "../../src/hypervisors/xl/driver.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../src/setup/guest-image.mjs";
import { bootSector } from "../rigs/xen/boot-sector.ts";
import type { XenRigHost } from "../rigs/xen/xen-host.ts";
import type { ContractHooks, ContractWorld } from "./suite.ts";

/** A small pool of its own, in dom0's memory, so that a test can fill it. */
const POOL = "contract";
const POOL_PATH = "/srv/contract";
const POOL_MIB = 96;

const KERNEL: VolumeRef = { pool: POOL, name: "vmlinuz" };
const INITRD: VolumeRef = { pool: POOL, name: "initrd" };

/** What every guest on the rig's host can do. */
export const XL_CAPABILITIES: readonly Capability[] = [
  "start",
  "stop",
  "gracefulStop",
  "reboot",
  "reset",
  "pause",
  "save",
  "consoleLog",
  "serialConsole",
  "volumes",
  "directKernel",
  "events",
];

/** What one that has no BIOS can do there. */
export const XL_PARAVIRTUAL: readonly Capability[] = [...XL_CAPABILITIES, "firmwarePvgrub"];

// Debian's kernel has no key of its own that makes it panic, unless it is told.
const COMMAND_LINE = `${GUEST_KERNEL_ARGS} sysrq_always_enabled`;

/** For whatever a guest or dom0 does in an emulated machine, on one that is busy. */
const PATIENCE_MS = 300_000;

const call: Call = {
  signal: new AbortController().signal,
  timeoutMs: PATIENCE_MS,
  beforeSend: () => undefined,
};

function xlTarget(host: XenRigHost): HostTarget {
  const { privateKey, knownHosts } = host;
  return {
    uri: `${host.uri}/?pool=${POOL}:${POOL_PATH}`,
    credentials: { ssh: { privateKey, knownHosts } },
    accelerator: "auto",
    installationId: newId<InstallationId>(),
    fence: "1",
  };
}

/** Makes the pool and puts the small guest's kernel and initrd into it, through the driver. */
export async function xlWorld(host: XenRigHost): Promise<ContractWorld> {
  await run(
    host,
    `mkdir -p "$1" && { mountpoint -q "$1" || mount -t tmpfs -o size=${POOL_MIB}m tmpfs "$1"; }`,
    POOL_PATH,
  );
  const target = xlTarget(host);
  const connection = await xlDriver.connect(target, call);
  try {
    const image = await buildGuestImage();
    await put(connection, KERNEL, image.kernel);
    await put(connection, INITRD, image.initrd);
  } finally {
    await connection.close();
  }
  return {
    driver: xlDriver,
    target,
    pool: POOL,
    network: "default",
    memoryMib: 128,
    kernel: { kernel: KERNEL, initrd: INITRD, commandLine: COMMAND_LINE },
    bootMarker: /DROVER-GUEST-UP boot=[0-9a-f-]{36}/,
    patienceMs: PATIENCE_MS,
    tearDown: async () => undefined,
  };
}

/** Writes a file of this machine into a new volume. */
async function put(connection: HostConnection, ref: VolumeRef, file: string): Promise<void> {
  const sizeBytes = statSync(file).size;
  await connection.volumes?.createVolume({ ...ref, format: "raw", capacityBytes: sizeBytes }, call);
  await connection.volumes?.uploadVolume(ref, createReadStream(file), sizeBytes, call);
}

/** Runs a text of sh in dom0, behind Drover's back. */
async function run(host: XenRigHost, text: string, ...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await host.run(["sh", "-c", text, "sh", ...args]);
  if (exitCode !== 0) throw new Error(`dom0: ${text} ended with ${exitCode}: ${stderr}`);
  return stdout.trimEnd();
}

/** The domid of a domain; fails where none of this UUID runs. */
const DOMID =
  "domid() { xl list -v | awk -v u=\"$1\" '{ for (i = 6; i < NF; i++) if ($i == u) print $(i - 5) }'; }";

export function xlHooks(host: () => XenRigHost, guestType: GuestType): ContractHooks {
  return {
    addForeignDomain: (_world, mark) =>
      mark === null ? addUnmarked(host(), guestType) : addMarked(host(), guestType, mark),
    removeForeignDomain: async (_world, uuid) => {
      await run(
        host(),
        `${DOMID}; id=$(domid "$1"); [ -z "$id" ] || xl destroy "$id"; rm -rf /var/lib/drover-xen/*/domains/"$1"`,
        uuid,
      );
    },
    cutDomainPower: async (_world, uuid) => {
      await run(host(), `${DOMID}; xl destroy "$(domid "$1")"`, uuid);
    },
    // A machine's firmware knows no such key.
    ...(guestType === "hvm"
      ? {}
      : {
          crashDomain: async (_world: ContractWorld, uuid: string) => {
            await run(host(), `${DOMID}; xl sysrq "$(domid "$1")" c`, uuid);
          },
        }),
    // Without this the guest's kernel does not listen to what Xen's toolstack asks for.
    deafen: async ({ kernel, bootSector: obeying }, spec, connection) => {
      if (obeying !== undefined) {
        const content = bootSector({ obeys: false });
        for (const { volume } of spec.disks) {
          await connection.volumes?.uploadVolume(volume, Readable.from([content]), content.length, call);
        }
        return;
      }
      if (kernel === null) throw new Error("the guest of this world boots from a kernel");
      const commandLine = `${kernel.commandLine} initcall_blacklist=xen_setup_shutdown_event`;
      await connection.defineDomain({ ...spec, boot: { kind: "kernel", ...kernel, commandLine } }, call);
    },
    breakConnections: async () => {
      host().cutConnections();
    },
    hang: async () => {
      host().pause();
      return async () => {
        host().resume();
      };
    },
    fillPool: async () => {
      const file = `${POOL_PATH}/filler`;
      await run(host(), 'cat /dev/zero >"$1" 2>/dev/null; test -s "$1"', file);
      return async () => {
        await run(host(), 'rm "$1"', file);
      };
    },
    digestOfVolume: async (_world, ref, bytes) => {
      const text = 'head -c "$1" "$2" | sha256sum';
      const line = await run(host(), text, String(bytes), `${POOL_PATH}/${ref.name}`);
      return line.split(" ")[0] ?? "";
    },
  };
}

/** A paused guest that somebody made with xl. */
async function addUnmarked(host: XenRigHost, guestType: GuestType): Promise<string> {
  const uuid = newId();
  const config = `name = "stranger-${uuid.slice(-12)}"
uuid = "${uuid}"
type = "${guestType}"
memory = 96
kernel = "${POOL_PATH}/${KERNEL.name}"
`;
  await run(host, 'printf %s "$1" >/run/stranger.cfg && xl create -p /run/stranger.cfg', config);
  return uuid;
}

/** A definition as another installation leaves it. */
async function addMarked(host: XenRigHost, guestType: GuestType, mark: string): Promise<string> {
  const uuid = newId();
  const spec = {
    ...{
      uuid,
      name: `other-${uuid.slice(-12)}`,
      installationId: mark,
      guestType,
      cpuCount: 1,
      memoryMib: 64,
    },
    ...{ boot: { kind: "firmware", firmware: "bios" }, disks: [], nics: [], consolePool: POOL },
  };
  const parts = { disks: [], nics: [], kernel: null, initrd: null };
  const json = JSON.stringify({ version: 1, spec, parts });
  const text = 'd=/var/lib/drover-xen/$1/domains/$2; mkdir -p "$d" && printf %s "$3" >"$d/domain.json"';
  await run(host, text, mark, uuid, json);
  return uuid;
}

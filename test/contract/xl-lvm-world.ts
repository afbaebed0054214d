import { createHash } from "node:crypto";
import { type HostTarget } from "../../src/hypervisors/hypervisor.ts";
import { xlDriver } from "../../src/hypervisors/xl/driver.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import type { XenRigHost } from "../rigs/xen/xen-host.ts";
import type { ContractHooks, ContractWorld } from "./suite.ts";

/** A volume group of its own, on a file of dom0's: with hyphens, which the device mapper doubles. */
export const GROUP = "contract-vg";
const FILE = "/srv/contract-vg.disk";
const FILE_MIB = 96;
/** Extents as small as the sizes that the contract asks for: LVM makes volumes of whole ones. */
const EXTENT = "1m";
const PATIENCE_MS = 300_000;

type Dom0 = Pick<XenRigHost, "run" | "uri" | "privateKey" | "knownHosts">;

export async function runInDom0(host: Dom0, text: string, ...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await host.run(["sh", "-c", text, "sh", ...args]);
  if (exitCode !== 0) throw new Error(`dom0: ${text} ended with ${exitCode}: ${stderr}`);
  return stdout.trimEnd();
}

/**
 * Makes the volume group. What it lies on is full of letters, as disks are that were used before: whoever reads one in a
 * new volume reads what was another's.
 */
export async function lvmWorld(host: Dom0): Promise<ContractWorld> {
  const text = `modprobe loop && yes OLD | head -c "$3"M >"$2" && device=$(losetup --find --show "$2") &&
    pvcreate -q -y "$device" && vgcreate -q -s "$4" "$1" "$device"`;
  await runInDom0(host, text, GROUP, FILE, String(FILE_MIB), EXTENT);
  const { uri, privateKey, knownHosts } = host;
  const target: HostTarget = {
    uri: `${uri}/`,
    credentials: { ssh: { privateKey, knownHosts } },
    accelerator: "auto",
    installationId: newId<InstallationId>(),
    fence: "1",
  };
  return {
    ...{ driver: xlDriver, target, pool: GROUP, network: "default", memoryMib: 64 },
    ...{ kernel: null, bootMarker: null, patienceMs: PATIENCE_MS },
    tearDown: async () => {
      const undo =
        'vgremove -q -y -f "$1" && losetup --detach "$(losetup -n -O NAME --associated "$2")" && rm "$2"';
      await runInDom0(host, undo, GROUP, FILE);
    },
  };
}

export function lvmHooks(host: () => Dom0): ContractHooks {
  return {
    digestOfVolume: async (_world, ref, bytes) => {
      const line = await runInDom0(
        host(),
        'head -c "$1" "$2" | sha256sum',
        String(bytes),
        `/dev/${GROUP}/${ref.name}`,
      );
      return line.split(" ")[0] ?? "";
    },
  };
}

/** The SHA-256 of so many zeros. */
export function digestOfZeros(bytes: number): string {
  return createHash("sha256").update(Buffer.alloc(bytes)).digest("hex");
}

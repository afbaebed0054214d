import type {
  AgentReport,
  AgentState,
  Firmware,
  GuestType,
  Hypervisor,
  SeenAddress,
} from "../hypervisors/hypervisor.ts";
import type { HostId, ImageId, InstallationId, NetworkId, ProjectId, VmId } from "../lib/ids.ts";
import { volumeName, volumePrefix } from "../volumes/volume-names.ts";
import { type DeletePolicy, isDiskRole } from "../volumes/volume-record.ts";

/** What was asked for, and nothing more. Names of images and hosts stand as the client gave them. */
export interface VmSpec {
  readonly hypervisor?: Hypervisor;
  readonly guestType?: GuestType;
  readonly runPolicy: RunPolicy;
  readonly cpu: { readonly count: number };
  readonly memoryMib: number;
  readonly boot: VmBoot;
  readonly disks: readonly VmDiskSpec[];
  readonly nics: readonly VmNicSpec[];
  readonly placement?: VmPlacement;
  readonly cloudInit?: VmCloudInit;
}

export type RunPolicy = "running" | "stopped";

export type VmBoot =
  | { readonly firmware: Firmware }
  | { readonly kernel: string; readonly initrd?: string; readonly commandLine?: string };

export interface VmDiskSpec {
  readonly name: string;
  /** Id or name of the image that it is filled from; empty without. */
  readonly image?: string;
  /** Without: the image's own virtual size. */
  readonly sizeGib?: number;
  /** Id or name of the volume that was attached as it. */
  readonly volume?: string;
  readonly deletePolicy?: DeletePolicy;
}

export interface VmNicSpec {
  readonly name: string;
  /** Id or name of a network of the project, else the name of one on the host; `host:<name>` is always the latter. */
  readonly network: string;
  readonly macAddress?: string;
  readonly ipv4Address?: string;
  readonly allowSpoofing?: boolean;
}

/** A NIC as it was made. */
export interface VmNic {
  readonly name: string;
  readonly networkId: NetworkId | null;
  /** As the network is called now: in the project, or on the host. */
  readonly network: string;
  readonly macAddress: string;
  /** What it has in the project's network. */
  readonly addresses: readonly string[];
}

export interface SeenVmAddress {
  readonly nic: string;
  readonly address: string;
  readonly source: SeenAddress["source"];
}

export interface VmPlacement {
  /** Id or name of the only host to consider. */
  readonly host?: string;
  /** Name of the pool for its volumes; without: a pool that the host has. */
  readonly pool?: string;
}

/** What cloud-init is told; texts that may hold secrets stand here by their digests only. */
export interface VmCloudInit {
  readonly hostname: string;
  readonly sshKeys: readonly string[];
  readonly users: readonly {
    readonly name: string;
    readonly sshKeys: readonly string[];
    readonly sudo: boolean;
  }[];
  readonly userData: HiddenText | null;
  readonly networkConfig: HiddenText | null;
}

export interface HiddenText {
  readonly sha256: string;
  readonly sizeBytes: number;
}

export type VmPhase = "provisioning" | "ready" | "failed" | "deleting";
export type VmPower = "running" | "paused" | "saved" | "off" | "crashed" | "unknown";

/** Something about a VM that a person or program should know. One of a type at most. */
export interface Condition {
  readonly type: ConditionType;
  readonly reason: string;
  readonly message: string;
  readonly since: string;
}

export type ConditionType =
  | "OperationFailed"
  | "AttentionRequired"
  | "RestartRequired"
  | "DomainMissing"
  | "HostUnreachable"
  | "Crashed"
  | "DiskError";

export interface VmImageUse {
  /** `kernel`, `initrd` or `disk:<name>`. */
  readonly role: string;
  readonly imageId: ImageId;
  readonly imageName: string;
  readonly sha256: string | null;
}

/** What the agent in a guest last told; nothing, with an error, where it never answered. */
export interface ToldByAgent extends Omit<AgentReport, "addresses"> {
  readonly error: string | null;
  readonly toldAt: Date | null;
}

/** A pool that holds disks of a VM, as its host last showed it. */
export interface DiskPool {
  readonly pool: string;
  readonly availableBytes: number;
}

/** What the view of a VM needs beside its record. */
export interface VmSurroundings {
  /** The pools of its disks; only where the host could not write to one of them. */
  readonly diskPools: readonly DiskPool[];
  readonly images: readonly VmImageUse[];
  readonly nics: readonly VmNic[];
  readonly operations: readonly string[];
  /** Null: it never told anything. */
  readonly agent: ToldByAgent | null;
  /** The host that it is on: when it last gave a complete inventory, and whether it answers. */
  readonly host: {
    readonly ready: boolean;
    readonly inventoryAt: Date | null;
    readonly error: string | null;
    readonly since: Date;
  } | null;
}

/** A VM as the inventory holds it. */
export interface VmRecord {
  readonly id: VmId;
  readonly projectId: ProjectId;
  readonly projectName: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: VmSpec;
  readonly generation: number;
  readonly phase: VmPhase;
  readonly power: VmPower;
  readonly powerReason: string | null;
  readonly hostId: HostId | null;
  readonly hostName: string | null;
  readonly domainUuid: string | null;
  readonly domainName: string | null;
  readonly hypervisor: Hypervisor | null;
  readonly guestType: GuestType | null;
  readonly pool: string | null;
  readonly observedAt: Date | null;
  readonly observedGeneration: number | null;
  /** As they were last seen. */
  readonly addresses: readonly SeenVmAddress[];
  /** Null: there is no way to an agent, or none was looked for yet. */
  readonly agentState: AgentState | null;
  readonly conditions: readonly Condition[];
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** `<vm name>-<last 12 hex digits of the id>`: unique on every host, and readable there. */
export function domainNameOf(vm: { readonly id: VmId; readonly name: string }): string {
  return `${vm.name}-${vm.id.slice(-12)}`;
}

/** Role of the volume that cloud-init reads. */
export const SEED_ROLE = "seed";

/** Name of a volume of a VM in its pool: holds the VM's whole id, so that a repeated step finds its own. */
export function volumeNameOf(
  installationId: InstallationId,
  vmId: VmId,
  role: string,
  format: string,
): string {
  const suffix = isDiskRole(role) ? format : role === SEED_ROLE ? "iso" : "boot";
  return volumeName(installationId, vmId, role.replace(":", "-"), suffix);
}

/** What all volumes that were made for a VM have in common. */
export function volumePrefixOf(installationId: InstallationId, vmId: VmId): string {
  return volumePrefix(installationId, vmId);
}

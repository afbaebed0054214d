import { z } from "zod";
import { Labels, LabelsPatch } from "../http/labels.ts";
import { Id, IdOrName, Name, plainText, Timestamp } from "../http/schemas.ts";
import { FIRMWARES, type Firmware, type GuestType } from "../hypervisors/hypervisor.ts";
import { Ipv4Address } from "../networks/network-schemas.ts";
import { DeletePolicyName } from "../volumes/volume-schemas.ts";
import { CloudInitSchema, NewCloudInit } from "./cloud-init/cloud-init-schemas.ts";
import { ACTIONS } from "./vm-state.ts";

/** The API's shapes of a VM. */

/** The largest VM that is taken: more than any host of today has. */
const MAX_CPUS = 1024;
const MAX_MEMORY_MIB = 64 * 1024 * 1024;
const MAX_DISK_GIB = 64 * 1024;

export const DeviceName = z
  .string()
  .regex(
    /^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$/,
    "must be 1 to 32 lower-case letters, digits and hyphens, a letter first",
  );

const HypervisorName = z.enum(["kvm", "xen"]);
const GuestTypeName = z.enum(["hvm", "pvh", "pv"]);

const Cpu = z.strictObject({ count: z.int().min(1).max(MAX_CPUS) }).meta({ id: "VmCpu" });
const MemoryMib = z.int().min(16).max(MAX_MEMORY_MIB);

const FirmwareBoot = z.strictObject({ firmware: z.enum(FIRMWARES) }).meta({
  id: "FirmwareBoot",
  description:
    "Boots without a kernel of the control plane. `bios`: an hvm guest, from its first disk, without disks from the " +
    "network. `uefi`: the same on KVM, by UEFI without secure boot; its variables are kept on the host as long as the VM. `pvgrub`: a pv or pvh guest on Xen, by GRUB, which runs inside the guest, takes the first disk that has " +
    "`/boot/grub/grub.cfg` and boots what stands in it. Without `boot`: `pvgrub` where the guest type is said to be pv " +
    "or pvh, else `bios`.",
});
const KernelBoot = z
  .strictObject({
    kernel: IdOrName.meta({ description: "An image of kind kernel." }),
    initrd: IdOrName.optional().meta({ description: "An image of kind initrd." }),
    commandLine: plainText({ min: 0, max: 2048 }).optional(),
  })
  .meta({ id: "KernelBoot", description: "Boots a kernel of the control plane directly." });

const Disk = z
  .strictObject({
    name: DeviceName,
    image: IdOrName.optional().meta({
      description: "An image of kind disk that it is filled from; empty without.",
    }),
    sizeGib: z
      .int()
      .min(1)
      .max(MAX_DISK_GIB)
      .optional()
      .meta({ description: "Without: as large as the image." }),
    deletePolicy: DeletePolicyName.optional().meta({
      description: "`delete` without: the disk's volume goes with the VM. `retain` keeps it.",
    }),
  })
  .refine((disk) => disk.image !== undefined || disk.sizeGib !== undefined, {
    path: ["sizeGib"],
    message: "an empty disk needs a size",
  })
  .meta({ id: "VmDisk" });

const MacAddress = z
  .string()
  .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/, "must be six lower-case pairs of hex digits with colons")
  .refine((mac) => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0, "must not be a multicast address");

const NetworkName = plainText({ max: 69 }).regex(
  /^(host:)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
  "must be the id or name of a network, or host: and the name of one that hosts have",
);

const Nic = z
  .strictObject({
    name: DeviceName,
    network: NetworkName.meta({
      description:
        "Id or name of a network of the project; where the project has none of this name, a network that the host has by itself. `host:<name>` is always one of the host's.",
      examples: ["default"],
    }),
    macAddress: MacAddress.optional().meta({ description: "Without: one is made." }),
    ipv4Address: Ipv4Address.optional().meta({
      description: "In a network of the project with an IPv4 subnet. Without: the first that is free.",
    }),
    allowSpoofing: z.boolean().optional().meta({
      description:
        "Whether the guest may send under other MAC and IP addresses than this NIC's, as a router or a bridge does. Without: it may not, where the host can see to that (libvirt's network filters).",
    }),
  })
  .meta({ id: "VmNic" });

/** A VM has no more. */
export const MAX_NICS = 8;

export const AttachNicBody = z.strictObject(Nic.shape).meta({
  id: "AttachVmNicBody",
  examples: [{ name: "eth1", network: "backend" }],
});

const Placement = z
  .strictObject({
    host: IdOrName.optional().meta({ description: "The only host to consider." }),
    pool: plainText({ max: 64 })
      .optional()
      .meta({
        description:
          "The pool for its volumes; `default` without, where there is one. An LVM volume group of a Xen host has to be " +
          "named, and takes no kernel.",
      }),
  })
  .meta({ id: "VmPlacement" });

function distinct(items: readonly { readonly name: string }[]): boolean {
  return new Set(items.map(({ name }) => name)).size === items.length;
}

const specShape = {
  hypervisor: HypervisorName.optional().meta({ description: "Without: placement chooses." }),
  guestType: GuestTypeName.optional().meta({ description: "Without: the host's first." }),
  cpu: Cpu,
  memoryMib: MemoryMib,
  placement: Placement.optional(),
};

const Boot = z.union([FirmwareBoot, KernelBoot]);

type Boot = z.output<typeof Boot>;

interface AskedBoot {
  readonly guestType?: GuestType | undefined;
  readonly boot?: Boot | undefined;
}

/** What is asked for, or what follows from the guest type. Where none is asked for, a BIOS boots any disk, and pvgrub not. */
function bootOf({ guestType, boot }: AskedBoot): Boot {
  return boot ?? { firmware: guestType === "pv" || guestType === "pvh" ? "pvgrub" : "bios" };
}

function hasFirmware(spec: AskedBoot): boolean {
  return "firmware" in bootOf(spec);
}

function boots(spec: AskedBoot, firmware: Firmware): boolean {
  const boot = bootOf(spec);
  return "firmware" in boot && boot.firmware === firmware;
}

/** What a create takes: the defaults filled in become the spec. */
const NewVmSpec = z
  .strictObject({
    ...specShape,
    runPolicy: z.enum(["running", "stopped"]).default("running"),
    boot: Boot.optional(),
    disks: z.array(Disk).max(26).refine(distinct, "the names must differ").default([]),
    nics: z.array(Nic).max(MAX_NICS).refine(distinct, "the names must differ").default([]),
    cloudInit: NewCloudInit.optional(),
  })
  .refine((spec) => boots(spec, "pvgrub") || !hasFirmware(spec) || spec.disks.length + spec.nics.length > 0, {
    path: ["disks"],
    message: "a VM that boots by firmware needs a disk, or a NIC to boot from the network",
  })
  .refine((spec) => !boots(spec, "pvgrub") || spec.disks.length > 0, {
    path: ["disks"],
    message: "a VM that boots by pvgrub needs a disk",
  })
  .meta({ id: "NewVmSpec" });

export const CreateVmBody = z.strictObject({ name: Name, labels: Labels.default({}), spec: NewVmSpec }).meta({
  id: "CreateVmBody",
  examples: [
    {
      name: "web-1",
      labels: { role: "web" },
      spec: {
        cpu: { count: 2 },
        memoryMib: 1024,
        disks: [{ name: "root", image: "debian-12", sizeGib: 10 }],
        nics: [{ name: "eth0", network: "default" }],
      },
    },
  ],
});
export type CreateVmBody = z.output<typeof CreateVmBody>;
/** What is asked for, complete. */
export type NewVm = Omit<CreateVmBody, "spec"> & {
  readonly spec: CreateVmBody["spec"] & { readonly boot: Boot };
};

/** Fills in what follows from the rest. */
export function completed(asked: CreateVmBody): NewVm {
  return { ...asked, spec: { ...asked.spec, boot: bootOf(asked.spec) } };
}

/** JSON Merge Patch; `disks` and `nics` have paths of their own. */
export const PatchVmBody = z
  .strictObject({
    labels: LabelsPatch.optional(),
    spec: z
      .strictObject({
        cpu: Cpu.optional(),
        memoryMib: MemoryMib.optional(),
        runPolicy: z.enum(["running", "stopped"]).optional(),
      })
      .meta({ id: "VmSpecPatch" })
      .optional(),
  })
  .meta({ id: "PatchVmBody", examples: [{ labels: { tier: "db" }, spec: { memoryMib: 2048 } }] });
export type PatchVmBody = z.output<typeof PatchVmBody>;

/** A disk as the spec shows it: one that came later says which volume it was attached with. */
const SpecDisk = z
  .strictObject({
    ...Disk.shape,
    volume: IdOrName.optional().meta({ description: "The volume that was attached as it." }),
  })
  .meta({ id: "VmSpecDisk" });

const VmSpecSchema = z
  .strictObject({
    ...specShape,
    runPolicy: z.enum(["running", "stopped"]),
    boot: Boot,
    disks: z.array(SpecDisk),
    nics: z.array(Nic),
    cloudInit: CloudInitSchema.optional(),
  })
  .meta({ id: "VmSpec", description: "What was asked for." });

const ConditionSchema = z
  .strictObject({
    type: z.enum([
      "OperationFailed",
      "AttentionRequired",
      "RestartRequired",
      "DomainMissing",
      "HostUnreachable",
      "Crashed",
      "DiskError",
    ]),
    reason: z.string(),
    message: z.string(),
    since: Timestamp,
  })
  .meta({ id: "Condition" });

const PowerName = z.enum(["running", "paused", "saved", "off", "crashed", "unknown"]);
const PhaseName = z.enum(["provisioning", "ready", "failed", "deleting"]);

const VmNicStatus = z
  .strictObject({
    name: DeviceName,
    network: z.string(),
    networkId: Id.nullable().meta({ description: "Null for a network that the host has by itself." }),
    macAddress: z.string(),
    addresses: z
      .array(z.string())
      .meta({ description: "Addresses that it has in the project's network, from create to delete." }),
  })
  .meta({ id: "VmNicStatus" });

const VmAddress = z
  .strictObject({
    address: z.string(),
    nic: DeviceName,
    source: z.enum(["lease", "agent", "arp", "static"]).meta({
      description:
        "Who told of it: the host's DHCP (`lease`), the agent in the guest, the host's ARP table. `static`: it is the NIC's, but was not seen in use yet.",
    }),
  })
  .meta({ id: "VmAddress" });

const VmAgent = z
  .strictObject({
    state: z.enum(["connected", "disconnected", "unsupported", "unknown"]).meta({
      description:
        "`connected`: something in the guest has opened its end of the agent's channel. `disconnected`: nothing has, or the VM is off. `unsupported`: there is no such channel. `unknown`: its host is silent, or the VM was not seen yet.",
    }),
    hostName: z.string().nullable().meta({ description: "The guest's own host name." }),
    osName: z
      .string()
      .nullable()
      .meta({ examples: ["Debian GNU/Linux 12 (bookworm)"] }),
    kernelRelease: z
      .string()
      .nullable()
      .meta({ examples: ["6.1.0-37-amd64"] }),
    observedAt: Timestamp.nullable().meta({ description: "When the agent was asked what stands here." }),
    error: z
      .string()
      .nullable()
      .meta({ description: "Why the last question brought no answer; null: it did, or none was asked." }),
  })
  .meta({
    id: "VmAgent",
    description:
      "The agent in the guest (qemu-guest-agent), and what it told; null as long as it is not connected. It is the guest's own word.",
  });

const VmStatus = z
  .strictObject({
    phase: PhaseName.meta({ description: "Where the VM is in its life." }),
    power: PowerName.meta({ description: "What was last seen; `unknown` while its host is silent." }),
    powerReason: z.string().nullable().meta({ description: "Why, in the hypervisor's word." }),
    host: z.string().nullable(),
    pool: z.string().nullable(),
    domainUuid: z.string().nullable(),
    domainName: z.string().nullable(),
    hypervisor: HypervisorName.nullable(),
    guestType: GuestTypeName.nullable(),
    images: z.array(
      z.strictObject({ role: z.string(), id: Id, name: z.string(), sha256: z.string().nullable() }),
    ),
    observedAt: Timestamp.nullable().meta({ description: "When the host last confirmed the power." }),
    observedGeneration: z
      .int()
      .nullable()
      .meta({ description: "The generation that the host's definition has." }),
    nics: z
      .array(VmNicStatus)
      .meta({ description: "Its NICs as they were made, in the order in which the guest sees them." }),
    addresses: z.array(VmAddress),
    agent: VmAgent,
    conditions: z.array(ConditionSchema),
    allowedActions: z
      .array(z.enum(ACTIONS))
      .meta({ description: "The actions that would do something now." }),
    operations: z.array(Id).meta({ description: "Its unfinished operations, oldest first." }),
  })
  .meta({ id: "VmStatus", description: "What was chosen, and what is seen." });

export const VmSchema = z
  .strictObject({
    id: Id,
    name: Name,
    project: z.string(),
    labels: Labels,
    generation: z.int().meta({ description: "Revision of spec and labels; the ETag." }),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    spec: VmSpecSchema,
    status: VmStatus,
  })
  .meta({ id: "Vm" });
export type Vm = z.output<typeof VmSchema>;

export const VM_FILTERS = {
  power: PowerName.optional(),
  phase: PhaseName.optional(),
  hypervisor: HypervisorName.optional(),
};

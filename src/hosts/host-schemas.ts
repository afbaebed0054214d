import { z } from "zod";
import { Labels, LabelsPatch } from "../http/labels.ts";
import { Id, Name, plainText, Timestamp } from "../http/schemas.ts";
import { HostFactsSchema } from "./host-facts.ts";

/** The API's shapes of a host. */

const Pem = z
  .string()
  .min(1)
  .max(65_536)
  .regex(/^[\x09\x0a\x0d\x20-\x7e]*$/, "must be PEM text");
const Lines = z
  .string()
  .min(1)
  .max(65_536)
  .regex(/^[\x09\x0a\x0d\x20-\x7e]*$/, "must be plain text");

export const CredentialsSchema = z
  .strictObject({
    ssh: z
      .strictObject({
        privateKey: Pem.meta({
          description: "A private key in OpenSSH's or PEM form, without a passphrase.",
        }),
        knownHosts: Lines.optional().meta({
          description: "Lines of a known_hosts file; an unknown host key is refused with its fingerprint.",
        }),
      })
      .optional(),
    tls: z.strictObject({ caCertificate: Pem, clientCertificate: Pem, clientKey: Pem }).optional(),
  })
  .meta({ id: "HostCredentials", description: "Write-only: kept encrypted and never returned." });
export type Credentials = z.output<typeof CredentialsSchema>;

const AcceleratorName = z
  .enum(["auto", "kvm", "tcg"])
  .meta({ description: "`auto`: what libvirt's probe shows to work." });

const Reserve = z
  .strictObject({
    cpuCount: z.int().min(0).max(4096).default(0),
    memoryMib: z
      .int()
      .min(0)
      .max(64 * 1024 * 1024)
      .default(512),
  })
  .meta({ id: "HostReserve", description: "Kept back for the host itself." });

const Overcommit = z
  .strictObject({
    cpu: z.number().min(0.1).max(64).default(4),
    memory: z.number().min(0.1).max(16).default(1),
  })
  .meta({
    id: "HostOvercommit",
    description: "How often CPUs and memory may be promised; Xen's memory only once.",
  });

const Uri = plainText({ max: 512 }).meta({
  examples: ["qemu+ssh://root@n1.example/system", "qemu:///system", "sim+kvm://n1?cpus=64&memoryGib=256"],
});

export const RegisterHostBody = z
  .strictObject({
    name: Name,
    uri: Uri,
    credentials: CredentialsSchema.optional(),
    accelerator: AcceleratorName.default("auto"),
    labels: Labels.default({}),
    reserve: Reserve.prefault({}),
    overcommit: Overcommit.prefault({}),
  })
  .meta({
    id: "RegisterHostBody",
    examples: [
      { name: "n1", uri: "qemu+ssh://root@n1.example/system", credentials: { ssh: { privateKey: "…" } } },
    ],
  });
export type RegisterHostBody = z.output<typeof RegisterHostBody>;

export const PatchHostBody = z
  .strictObject({
    labels: LabelsPatch.optional(),
    credentials: CredentialsSchema.optional(),
    accelerator: AcceleratorName.optional(),
    reserve: z
      .strictObject({
        cpuCount: z.int().min(0).max(4096).optional(),
        memoryMib: z
          .int()
          .min(0)
          .max(64 * 1024 * 1024)
          .optional(),
      })
      .optional(),
    overcommit: z
      .strictObject({
        cpu: z.number().min(0.1).max(64).optional(),
        memory: z.number().min(0.1).max(16).optional(),
      })
      .optional(),
  })
  .meta({ id: "PatchHostBody", description: "JSON Merge Patch; credentials are replaced as a whole." });
export type PatchHostBody = z.output<typeof PatchHostBody>;

export const ForgetHostBody = z
  .strictObject({ confirmName: Name.meta({ description: "The host's name, once more." }) })
  .meta({ id: "ForgetHostBody" });

const Amount = z.strictObject({ cpuCount: z.int(), memoryMib: z.int() });

export const HostStateName = z.enum(["connecting", "ready", "unreachable"]);
export const DriverNameSchema = z.enum(["libvirt", "xl", "sim"]);

const HostStatus = z
  .strictObject({
    state: HostStateName.meta({ description: "`connecting` until it answered once." }),
    error: z
      .strictObject({
        code: z.string(),
        message: z.string(),
        retry: z.string(),
        details: z.record(z.string(), z.unknown()).optional(),
      })
      .nullable()
      .meta({ description: "Why it is unreachable." }),
    driver: DriverNameSchema,
    hypervisor: z.enum(["kvm", "xen"]),
    facts: HostFactsSchema.nullable().meta({
      description:
        "What the host is and, by guest type, what it can do: as declared by its driver and found by its probe.",
    }),
    allocatable: Amount.nullable().meta({ description: "What may be promised to VMs in all." }),
    reserved: Amount.meta({ description: "What VMs have reserved." }),
    unmanaged: Amount.meta({ description: "What domains use that are not ours." }),
    vmCount: z.int(),
    inventorySeq: z.int().meta({ description: "Number of the last complete inventory." }),
    inventoryAt: Timestamp.nullable(),
    lastSeenAt: Timestamp.nullable(),
    operations: z.array(Id).meta({ description: "Its unfinished operations, oldest first." }),
  })
  .meta({ id: "HostStatus" });

export const HostSchema = z
  .strictObject({
    id: Id,
    name: Name,
    labels: Labels,
    generation: z.int(),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    spec: z
      .strictObject({
        uri: z.string(),
        accelerator: AcceleratorName,
        schedulable: z.boolean().meta({ description: "False: cordoned, nothing new is placed on it." }),
        reserve: Amount,
        overcommit: z.strictObject({ cpu: z.number(), memory: z.number() }),
      })
      .meta({ id: "HostSpec" }),
    status: HostStatus,
  })
  .meta({ id: "Host" });
export type Host = z.output<typeof HostSchema>;

export const HostDomainSchema = z
  .strictObject({
    uuid: z.string(),
    name: z.string(),
    power: z.enum(["running", "paused", "saved", "off", "crashed"]),
    reason: z.string().nullable(),
    cpuCount: z.int(),
    memoryMib: z.int(),
    autostart: z.boolean(),
    managed: z.boolean().meta({ description: "False: made by somebody else, and never touched." }),
    vmId: Id.nullable(),
    observedAt: Timestamp,
  })
  .meta({ id: "HostDomain" });

export const HostNetworkSchema = z
  .strictObject({
    name: z.string(),
    uuid: z.string().nullable(),
    active: z.boolean(),
    bridge: z.string().nullable(),
    mode: z.string(),
    observedAt: Timestamp,
  })
  .meta({ id: "HostNetwork" });

export const HostPoolSchema = z
  .strictObject({
    name: z.string(),
    uuid: z.string().nullable(),
    active: z.boolean(),
    type: z.string(),
    path: z.string().nullable(),
    capacityBytes: z.int(),
    allocationBytes: z.int().meta({ description: "What is taken, by whomever." }),
    availableBytes: z.int(),
    observedAt: Timestamp,
  })
  .meta({ id: "HostPool" });

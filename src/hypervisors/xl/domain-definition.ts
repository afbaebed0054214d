import { z } from "zod";
import { asId, type InstallationId, isUuid, type VmId } from "../../lib/ids.ts";
import { type DomainSpec, FIRMWARES } from "../hypervisor.ts";
import { unreadable } from "./errors.ts";
import type { ResolvedParts } from "./xl-config.ts";

/** A domain as Drover defined it on a host: what was asked, and what the host calls its parts. */
export interface DomainDefinition {
  readonly spec: DomainSpec;
  readonly parts: ResolvedParts;
}

/** Goes up with a change that an older Drover could not read. */
const VERSION = 1;

const count = z.number().int().positive();
const uuid = z.string().refine(isUuid, "must be a UUID in lower case");
const volume = z.strictObject({ pool: z.string(), name: z.string() });

const specSchema = z.strictObject({
  uuid: uuid.transform((id) => asId<VmId>(id)),
  name: z.string().min(1),
  installationId: uuid.transform((id) => asId<InstallationId>(id)),
  guestType: z.enum(["hvm", "pvh", "pv"]),
  cpuCount: count,
  memoryMib: count,
  boot: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("firmware"), firmware: z.enum(FIRMWARES) }),
    z.strictObject({
      kind: z.literal("kernel"),
      kernel: volume,
      initrd: volume.nullable(),
      commandLine: z.string(),
    }),
  ]),
  disks: z.array(
    z.strictObject({
      name: z.string(),
      kind: z.enum(["disk", "cdrom"]),
      volume,
      format: z.enum(["raw", "qcow2"]),
    }),
  ),
  nics: z.array(z.strictObject({ name: z.string(), network: z.string(), macAddress: z.string() })),
  consolePool: z.string(),
});

const partsSchema = z.strictObject({
  disks: z.array(z.strictObject({ name: z.string(), type: z.enum(["file", "block"]), path: z.string() })),
  nics: z.array(z.strictObject({ name: z.string(), bridge: z.string() })),
  kernel: z.string().nullable(),
  initrd: z.string().nullable(),
});

const fileSchema = z.strictObject({ version: z.literal(VERSION), spec: specSchema, parts: partsSchema });

/** Writes a definition as its file on the host holds it: in one line, without its end. */
export function writeDefinition({ spec, parts }: DomainDefinition): string {
  return JSON.stringify({ version: VERSION, spec, parts });
}

/** Reads a definition's file. Throws HypervisorError (`failed`) for one that is none, or that a later Drover wrote. */
export function readDefinition(text: string): DomainDefinition {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw unreadable(FILE, "it is no JSON", cause);
  }
  const read = fileSchema.safeParse(json);
  if (!read.success) throw unreadable(FILE, z.prettifyError(read.error), read.error);
  return { spec: read.data.spec, parts: read.data.parts };
}

const FILE = "domain.json";

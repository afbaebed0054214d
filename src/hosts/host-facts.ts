import { z } from "zod";
import { CAPABILITIES, HypervisorError } from "../hypervisors/hypervisor.ts";
import { parseIp } from "../lib/ip-address.ts";

/** The schemas that a driver's answers must pass before the inventory believes them. */

const size = z.number().int().nonnegative();
const text = z.string().max(1024);

export const HostFactsSchema = z.object({
  hostUuid: text.nullable(),
  hostname: text,
  hypervisor: z.enum(["kvm", "xen"]),
  hypervisorVersion: text,
  toolstackVersion: text,
  architecture: text,
  cpu: z.object({
    model: text,
    count: z.number().int().positive(),
    sockets: size,
    coresPerSocket: size,
    threadsPerCore: size,
  }),
  memoryMib: z.number().int().positive(),
  numaCells: z.array(z.object({ id: size, memoryMib: size, cpus: z.array(size) })),
  accelerator: z.enum(["kvm", "tcg"]).nullable(),
  guestTypes: z.array(
    z.object({ guestType: z.enum(["hvm", "pvh", "pv"]), capabilities: z.array(z.enum(CAPABILITIES)) }),
  ),
});

export const ObservedDomainSchema = z.object({
  uuid: z.guid(),
  name: text,
  power: z.enum(["running", "paused", "saved", "off", "crashed"]),
  reason: text.nullable(),
  cpuCount: size,
  memoryMib: size,
  installationId: text.nullable(),
  vmId: text.nullable(),
  autostart: z.boolean(),
});

export const HostInventorySchema = z.object({
  domains: z.array(ObservedDomainSchema),
  networks: z.array(
    z.object({
      name: text,
      uuid: text.nullable(),
      active: z.boolean(),
      bridge: text.nullable(),
      mode: text,
    }),
  ),
  pools: z.array(
    z.object({
      name: text,
      uuid: text.nullable(),
      active: z.boolean(),
      type: text,
      path: z.string().max(4096).nullable(),
      capacityBytes: size,
      availableBytes: size,
    }),
  ),
  memoryFreeMib: size.nullable(),
  addresses: z
    .array(
      z.object({
        macAddress: z.string().regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/),
        address: z.string().refine((value) => parseIp(value) !== null),
        source: z.enum(["lease", "agent", "arp"]),
      }),
    )
    .optional(),
});

/** Checks what a driver gave. Throws HypervisorError `failed` that names the field, so that a driver's bug shows as one. */
export function checked<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new HypervisorError(
    "failed",
    `the driver gave ${what} that cannot be right: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`,
    { cause: parsed.error },
  );
}

import fc from "fast-check";
import type { DomainSpec, GuestType } from "../../../../src/hypervisors/hypervisor.ts";
import type { DomainDefinition } from "../../../../src/hypervisors/xl/domain-definition.ts";
import type { ResolvedParts } from "../../../../src/hypervisors/xl/xl-config.ts";
import { asId, type InstallationId, type VmId } from "../../../../src/lib/ids.ts";

const VOLUMES = "/var/lib/drover-xen/pools/default";

/** A guest with two disks and an interface, from a kernel. */
export function spec(change: Partial<DomainSpec> = {}): DomainSpec {
  return {
    uuid: asId<VmId>("0192aaaa-0000-7000-8000-00000000abcd"),
    name: "web-1-00000000abcd",
    installationId: asId<InstallationId>("0192aaaa-0000-7000-8000-000000000001"),
    guestType: "pvh",
    cpuCount: 2,
    memoryMib: 256,
    boot: {
      kind: "kernel",
      kernel: { pool: "default", name: "vmlinuz" },
      initrd: { pool: "default", name: "initrd" },
      commandLine: 'console=hvc0 name="web 1"',
    },
    disks: [
      { name: "root", kind: "disk", volume: { pool: "default", name: "root.qcow2" }, format: "qcow2" },
      { name: "data", kind: "disk", volume: { pool: "vg0", name: "data" }, format: "raw" },
    ],
    nics: [{ name: "eth0", network: "lan", macAddress: "52:54:00:12:34:56" }],
    consolePool: "default",
    ...change,
  };
}

export const PARTS: ResolvedParts = {
  disks: [
    { name: "root", type: "file", path: `${VOLUMES}/root.qcow2` },
    { name: "data", type: "block", path: "/dev/vg0/data" },
  ],
  nics: [{ name: "eth0", bridge: "xenbr0" }],
  kernel: `${VOLUMES}/vmlinuz`,
  initrd: `${VOLUMES}/initrd`,
};

/** Text of characters that xl's strings can hold, most of them such that mean something to its reader. */
const representable = fc
  .array(
    fc.oneof(
      fc.constantFrom(...Array.from("\"'\\ =,[]#;:\t\\\\n\\x0")),
      fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }),
    ),
    { maxLength: 30 },
  )
  .map((characters) => characters.join(""))
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is left out
  .filter((text) => !/[\u0000-\u0008\u000a-\u001f\u007f]/.test(text) && text.isWellFormed());

const path = representable.map((text) => `/${text}`).filter((text) => !text.endsWith(","));

/** Any definition that xl can be given: specs with their parts. */
export const definition: fc.Arbitrary<DomainDefinition> = fc
  .record({
    guestType: fc.constantFrom<GuestType>("hvm", "pvh", "pv"),
    fromKernel: fc.boolean(),
    cpuCount: fc.integer({ min: 1, max: 512 }),
    memoryMib: fc.integer({ min: 1, max: 2 ** 24 }),
    commandLine: representable,
    kernel: path,
    initrd: fc.option(path),
    disks: fc.array(fc.tuple(fc.constantFrom("raw", "qcow2"), path), { maxLength: 30 }),
    bridges: fc.array(fc.constantFrom("xenbr0", "br-lan"), { maxLength: 3 }),
  })
  .map(({ guestType, fromKernel, cpuCount, memoryMib, commandLine, kernel, initrd, disks, bridges }) => {
    const isKernel = fromKernel || guestType !== "hvm";
    const volume = { pool: "p", name: "v" };
    return {
      spec: spec({
        guestType,
        cpuCount,
        memoryMib,
        boot: isKernel
          ? { kind: "kernel", kernel: volume, initrd: initrd === null ? null : volume, commandLine }
          : { kind: "firmware", firmware: "bios" },
        disks: disks.map(([format], index) => ({ name: `d${index}`, kind: "disk" as const, volume, format })),
        nics: bridges.map((_, index) => ({
          name: `n${index}`,
          network: "lan",
          macAddress: "52:54:00:12:34:56",
        })),
      }),
      parts: {
        disks: disks.map(([, at], index) => ({ name: `d${index}`, type: "file" as const, path: at })),
        nics: bridges.map((bridge, index) => ({ name: `n${index}`, bridge })),
        kernel: isKernel ? kernel : null,
        initrd: isKernel ? initrd : null,
      },
    };
  });

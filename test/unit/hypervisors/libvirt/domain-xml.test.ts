import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type DomainDisk, type DomainSpec, HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import {
  diskTarget,
  domainXml,
  type GuestPlatform,
  nicXml,
  type ResolvedPaths,
} from "../../../../src/hypervisors/libvirt/domain-xml.ts";
import { parseDomain } from "../../../../src/hypervisors/libvirt/parse-domain.ts";
import { volumeXml } from "../../../../src/hypervisors/libvirt/volume-xml.ts";
import { attribute, child, childrenNamed, textAt } from "../../../../src/hypervisors/libvirt/xml.ts";
import { readXml, type XmlElement } from "../../../../src/hypervisors/libvirt/xml-reader.ts";
import { asId, type InstallationId, type VmId } from "../../../../src/lib/ids.ts";

const spec: DomainSpec = {
  uuid: asId<VmId>("0192aaaa-0000-7000-8000-00000000abcd"),
  name: "web-1-00000000abcd",
  installationId: asId<InstallationId>("0192aaaa-0000-7000-8000-000000000001"),
  guestType: "hvm",
  cpuCount: 2,
  memoryMib: 256,
  boot: { kind: "firmware", firmware: "bios" },
  disks: [
    { name: "root", kind: "disk", volume: { pool: "default", name: "a" }, format: "qcow2" },
    {
      name: "a-disk-with-a-very-long-name",
      kind: "disk",
      volume: { pool: "vg", name: "b" },
      format: "raw",
    },
  ],
  nics: [{ name: "eth0", network: "default", macAddress: "52:54:00:11:22:33" }],
  consolePool: "default",
};
const seed: DomainDisk = {
  name: "cloud_init",
  kind: "cdrom",
  volume: { pool: "default", name: "s" },
  format: "raw",
};
const kernelBoot = {
  kind: "kernel",
  kernel: { pool: "p", name: "k" },
  initrd: { pool: "p", name: "i" },
  commandLine: `console=ttyS0 a="<&>'"`,
} as const;
const platform: GuestPlatform = {
  domainType: "qemu",
  architecture: "x86_64",
  machine: "q35",
  cpu: { mode: "custom", model: "Westmere" },
  hasFilters: true,
};
const paths: ResolvedPaths = {
  disks: new Map([
    ["root", { type: "file", path: "/pool/a" }],
    ["cloud_init", { type: "file", path: "/pool/s" }],
    ["a-disk-with-a-very-long-name", { type: "block", path: "/dev/vg/b" }],
  ]),
  kernel: "/pool/k",
  initrd: "/pool/i",
  consoleLog: "/pool/console.log",
};

function write(change: Partial<DomainSpec> = {}, on: Partial<GuestPlatform> = {}): XmlElement {
  return readXml(domainXml({ ...spec, ...change }, { ...platform, ...on }, paths));
}

function devices(root: XmlElement, name: string): readonly XmlElement[] {
  return childrenNamed(child(root, "devices"), name);
}

describe("the guard of a network interface", () => {
  const guarded = (addresses: readonly string[], hasFilters = true) => {
    const nic = { name: "eth0", network: "n", macAddress: "52:54:00:11:22:33", guard: { addresses } };
    return child(readXml(nicXml(nic, { hasFilters })), "filterref");
  };
  const told = (filter: XmlElement | undefined) => ({
    filter: attribute(filter, "filter"),
    parameters: childrenNamed(filter, "parameter").map((parameter) => attribute(parameter, "value")),
  });

  it("lets the guest send from its own addresses, and where none is known from its own MAC address", () => {
    expect(told(guarded(["10.0.0.5", "10.0.0.6"]))).toEqual({
      filter: "clean-traffic",
      parameters: ["10.0.0.5", "10.0.0.6"],
    });
    expect(told(guarded([]))).toEqual({ filter: "no-mac-spoofing", parameters: [] });
  });

  it("does not cut off IPv6", () => {
    expect(told(guarded(["10.0.0.5", "fd00::5"])).filter).toBe("no-mac-spoofing");
  });

  it("is not there where the host has no filters, or the guest may send anything", () => {
    expect(guarded(["10.0.0.5"], false)).toBeUndefined();
    const nic = { name: "eth0", network: "n", macAddress: "52:54:00:11:22:33" };
    expect(child(readXml(nicXml(nic, { hasFilters: true })), "filterref")).toBeUndefined();
  });
});

describe("a domain's XML", () => {
  it("carries identity, mark and size, so that the parser finds them again", () => {
    const text = domainXml(spec, platform, paths);
    expect(parseDomain(text)).toEqual({
      installationId: spec.installationId,
      vmId: spec.uuid,
      cpuCount: 2,
      memoryMib: 256,
    });
    const root = readXml(text);
    expect(attribute(root, "type")).toBe("qemu");
    expect(textAt(root, "uuid")).toBe(spec.uuid);
    expect(textAt(root, "name")).toBe(spec.name);
  });

  it("boots from its disk, without one from the network, or from kernel, initrd and command line as they were given", () => {
    expect(attribute(child(write(), "os", "boot"), "dev")).toBe("hd");
    expect(attribute(child(write({ disks: [] }), "os", "boot"), "dev")).toBe("network");
    const os = child(write({ boot: kernelBoot }), "os");
    expect(os?.children.map(({ name, text }) => [name, text])).toEqual([
      ["type", "hvm"],
      ["kernel", "/pool/k"],
      ["initrd", "/pool/i"],
      ["cmdline", kernelBoot.commandLine],
    ]);
  });

  it("boots by UEFI that libvirt finds, and not by what only Xen has", () => {
    const root = write({ boot: { kind: "firmware", firmware: "uefi" } });
    expect(attribute(child(root, "os"), "firmware")).toBe("efi");
    expect(attribute(child(root, "os", "firmware", "feature"), "enabled")).toBe("no");
    expect(attribute(child(root, "os", "boot"), "dev")).toBe("hd");
    expect(attribute(child(write(), "os"), "firmware")).toBeUndefined();
    expect(() => write({ boot: { kind: "firmware", firmware: "pvgrub" } })).toThrow("no pvgrub");
  });

  it("has disks by path, stopping the guest on errors, with a serial that stays the same", () => {
    const disks = devices(write(), "disk");
    expect(disks.map((disk) => attribute(child(disk, "source"), "file"))).toEqual(["/pool/a", undefined]);
    expect(disks.map((disk) => attribute(child(disk, "source"), "dev"))).toEqual([undefined, "/dev/vg/b"]);
    expect(disks.map((disk) => attribute(child(disk, "driver"), "type"))).toEqual(["qcow2", "raw"]);
    expect(disks.map((disk) => attribute(child(disk, "driver"), "error_policy"))).toEqual(["stop", "stop"]);
    expect(disks.map((disk) => attribute(child(disk, "target"), "dev"))).toEqual(["vda", "vdb"]);
    expect(disks.map((disk) => textAt(disk, "serial"))).toEqual(["root", "a-disk-with-a-very-l"]);
  });

  it("has cdroms on a controller of their own, which cannot be written and do not count as what it boots from", () => {
    const root = write({ disks: [seed, ...spec.disks] });
    const disks = devices(root, "disk");
    expect(disks.map((disk) => attribute(child(disk, "target"), "dev"))).toEqual(["vda", "vdb", "sda"]);
    const cdrom = disks.find((disk) => attribute(disk, "device") === "cdrom") ?? root;
    expect(attribute(cdrom, "type")).toBe("file");
    expect(attribute(child(cdrom, "source"), "file")).toBe("/pool/s");
    expect(child(cdrom, "target")?.attributes).toEqual(
      new Map([
        ["dev", "sda"],
        ["bus", "scsi"],
      ]),
    );
    expect(child(cdrom, "readonly")).toBeDefined();
    const controllers = devices(root, "controller").map((item) => attribute(item, "model"));
    expect(controllers.filter((model) => model === "virtio-scsi")).toHaveLength(1);
    expect(controllers.filter((model) => model === "pcie-root-port")).toHaveLength(2 + 1 + 1 + 3 + 6);
    expect(attribute(child(write({ disks: [seed] }), "os", "boot"), "dev")).toBe("network");
    const models = devices(write(), "controller").map((item) => attribute(item, "model"));
    expect(models).not.toContain("virtio-scsi");
  });

  it("has its console logged, its screen on loopback, and free ports to plug devices in", () => {
    const root = write();
    expect(attribute(child(root, "devices", "serial", "log"), "file")).toBe("/pool/console.log");
    expect(attribute(child(root, "devices", "serial", "log"), "append")).toBe("on");
    expect(attribute(child(root, "devices", "graphics"), "listen")).toBe("127.0.0.1");
    const ports = devices(root, "controller").filter((item) => attribute(item, "model") === "pcie-root-port");
    expect(ports.length).toBe(2 + 1 + 3 + 6);
  });

  it("has the CPU that its host can give", () => {
    const cpuOf = (cpu: GuestPlatform["cpu"]) => child(write({}, { cpu }), "cpu");
    expect(textAt(write(), "cpu", "model")).toBe("Westmere");
    expect(attribute(cpuOf({ mode: "host-passthrough" }), "mode")).toBe("host-passthrough");
    expect(attribute(cpuOf({ mode: "host-model" }), "mode")).toBe("host-model");
    expect(attribute(cpuOf({ mode: "maximum" }), "mode")).toBe("maximum");
    expect(cpuOf(null)).toBeUndefined();
  });

  it("has no machine where the driver knows none", () => {
    expect(child(write({}, { machine: null }), "os", "type")?.attributes).toEqual(
      new Map([["arch", "x86_64"]]),
    );
  });

  it("holds any text unchanged, or is refused", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("&lt;", "&#38;", "]]>")),
        (commandLine) => {
          let text: string;
          try {
            text = domainXml({ ...spec, boot: { ...kernelBoot, commandLine } }, platform, paths);
          } catch (error) {
            expect(error).toBeInstanceOf(HypervisorError);
            expect(error).toMatchObject({ reason: "invalid-spec" });
            return;
          }
          expect(child(readXml(text), "os", "cmdline")?.text ?? "").toBe(commandLine.trim());
        },
      ),
    );
  });

  it.each(["\u0001", "\u0000", "\uFFFE"])("refuses a character that XML cannot hold", (character) => {
    expect(() =>
      domainXml({ ...spec, boot: { ...kernelBoot, commandLine: character } }, platform, paths),
    ).toThrow(HypervisorError);
  });

  it("refuses a disk without a path, and a kernel boot without a kernel", () => {
    expect(() => domainXml(spec, platform, { ...paths, disks: new Map() })).toThrow(
      "disk 'root' has no path",
    );
    expect(() => domainXml({ ...spec, boot: kernelBoot }, platform, { ...paths, kernel: null })).toThrow(
      "kernel",
    );
  });
});

describe("disk targets", () => {
  it("go on after vdz, each once", () => {
    const targets = Array.from({ length: 800 }, (_, index) => diskTarget(index));
    expect([0, 25, 26, 51, 52, 701, 702].map((index) => targets[index])).toEqual([
      "vda",
      "vdz",
      "vdaa",
      "vdaz",
      "vdba",
      "vdzz",
      "vdaaa",
    ]);
    expect(new Set(targets).size).toBe(targets.length);
  });
});

describe("a volume's XML", () => {
  it.each([
    ["raw", undefined],
    ["qcow2", "1.1"],
  ] as const)("of %s says its size, and takes no space yet", (format, compat) => {
    const root = readXml(volumeXml({ pool: "p", name: "a<b", format, capacityBytes: 1 << 30 }));
    expect(textAt(root, "name")).toBe("a<b");
    expect(textAt(root, "capacity")).toBe("1073741824");
    expect(textAt(root, "allocation")).toBe("0");
    expect(attribute(child(root, "target", "format"), "type")).toBe(format);
    expect(textAt(root, "target", "compat")).toBe(compat);
  });
});

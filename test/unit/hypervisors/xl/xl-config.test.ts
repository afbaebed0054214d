import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DomainSpec } from "../../../../src/hypervisors/hypervisor.ts";
import { resolveParts } from "../../../../src/hypervisors/xl/spec-parts.ts";
import {
  checkedDomainName,
  diskDevice,
  type ResolvedParts,
  xlConfig,
} from "../../../../src/hypervisors/xl/xl-config.ts";
import { readConfig, readDisk } from "./config-reader.ts";
import { definition, PARTS, spec } from "./specs.ts";

const BIOS = { kind: "firmware", firmware: "bios" } as const;
const PVGRUB = { kind: "firmware", firmware: "pvgrub" } as const;

describe("a domain's configuration", () => {
  it("of a pvh guest from a kernel is written", () => {
    expect(xlConfig(spec(), PARTS)).toBe(
      [
        'name = "web-1-00000000abcd"',
        'uuid = "0192aaaa-0000-7000-8000-00000000abcd"',
        'type = "pvh"',
        "vcpus = 2",
        "memory = 256",
        "maxmem = 256",
        'kernel = "/var/lib/drover-xen/pools/default/vmlinuz"',
        'ramdisk = "/var/lib/drover-xen/pools/default/initrd"',
        'cmdline = "console=hvc0 name=\\"web 1\\""',
        'disk = ["format=qcow2,vdev=xvda,access=w,backendtype=qdisk,target=/var/lib/drover-xen/pools/default/root.qcow2", "format=raw,vdev=xvdb,access=w,backendtype=phy,target=/dev/vg0/data"]',
        'vif = ["mac=52:54:00:12:34:56,bridge=xenbr0"]',
        'on_poweroff = "destroy"',
        'on_reboot = "restart"',
        'on_crash = "preserve"',
        'on_watchdog = "preserve"',
        "",
      ].join("\n"),
    );
  });

  it("of an hvm guest from its disk has a BIOS's devices, and its screen on the loopback", () => {
    const config = readConfig(xlConfig(spec({ guestType: "hvm", boot: BIOS }), PARTS));
    expect(Object.fromEntries(config)).toMatchObject({
      type: "hvm",
      boot: "c",
      serial: "pty",
      vnc: "1",
      vnclisten: "127.0.0.1",
      vif: ["mac=52:54:00:12:34:56,bridge=xenbr0,model=e1000"],
    });
    expect([...config.keys()]).not.toContain("kernel");
    expect(config.get("disk")).toEqual([
      expect.stringContaining("vdev=hda,"),
      expect.stringContaining("vdev=hdb,"),
    ]);
  });

  it("has an emulated machine's serial port logged where guests' consoles are, whatever the path", () => {
    const hvm = spec({ guestType: "hvm", boot: { kind: "firmware", firmware: "bios" } });
    const config = readConfig(xlConfig(hvm, PARTS, "/var/log/a,b/guest-web.log"));
    expect(config.get("device_model_args_hvm")).toEqual([
      "-chardev",
      "pty,id=serial0,logappend=on,logfile=/var/log/a,,b/guest-web.log",
      "-serial",
      "chardev:serial0",
    ]);
    expect([...config.keys()]).not.toContain("serial");
    expect(() => xlConfig(hvm, PARTS, "guest-web.log")).toThrow("no path");
  });

  it.each([
    ["pv", "/usr/lib/grub-xen/grub-x86_64-xen.bin"],
    ["pvh", "/usr/lib/grub-xen/grub-i386-xen_pvh.bin"],
  ] as const)(
    "of a %s guest from its disk has GRUB for Xen as its kernel, and nothing beside",
    (guestType, loader) => {
      const fromDisk = spec({ guestType, boot: PVGRUB, disks: [], nics: [] });
      const parts = resolveParts(fromDisk, { pools: [], networks: [], defaultBridge: "xenbr0" });
      const config = readConfig(xlConfig(fromDisk, parts));
      expect(config.get("kernel")).toBe(loader);
      for (const setting of ["ramdisk", "cmdline", "bootloader", "boot"])
        expect(config.has(setting)).toBe(false);
    },
  );

  it.each([
    ["pv", "access=r,backendtype"],
    ["pvh", "access=r,backendtype"],
    ["hvm", "access=r,devtype=cdrom,backendtype"],
  ] as const)("of a %s guest lets it read a disc, and not write it", (guestType, written) => {
    const disks = spec().disks.map((item) => ({ ...item, kind: "cdrom" as const }));
    const found = readConfig(xlConfig(spec({ guestType, disks }), PARTS)).get("disk");
    expect(found).toEqual(disks.map(() => expect.stringContaining(written) as string));
  });

  it("without disks, interfaces, initrd and command line is as short as it can be", () => {
    const boot = { kind: "kernel", kernel: { pool: "p", name: "k" }, initrd: null, commandLine: "" } as const;
    const parts = { disks: [], nics: [], kernel: "/k", initrd: null };
    const config = readConfig(xlConfig(spec({ guestType: "pv", boot, disks: [], nics: [] }), parts));
    expect([...config.keys()]).not.toContain("ramdisk");
    expect([...config.keys()]).not.toContain("cmdline");
    expect(config.get("disk")).toEqual([]);
    const fromNetwork = spec({ guestType: "hvm", boot: BIOS, disks: [] });
    expect(readConfig(xlConfig(fromNetwork, PARTS)).get("boot")).toBe("n");
  });

  it("is read back as it was meant, whatever stands in it", () => {
    fc.assert(
      fc.property(definition, ({ spec: wanted, parts }) => {
        const config = readConfig(xlConfig(wanted, parts));
        expect(config.get("name")).toBe(wanted.name);
        expect(config.get("vcpus")).toBe(String(wanted.cpuCount));
        expect(config.get("memory")).toBe(String(wanted.memoryMib));
        expect(config.get("kernel")).toBe(parts.kernel ?? undefined);
        expect(config.get("ramdisk")).toBe(parts.initrd ?? undefined);
        const commandLine = wanted.boot.kind === "kernel" ? wanted.boot.commandLine : "";
        expect(config.get("cmdline") ?? "").toBe(commandLine);
        const disks = [config.get("disk") ?? []].flat().map(readDisk);
        expect(disks.map(({ target, format }) => [target, format])).toEqual(
          parts.disks.map(({ path }, index) => [path, wanted.disks[index]?.format]),
        );
        expect(new Set(disks.map(({ vdev }) => vdev)).size).toBe(disks.length);
      }),
    );
  });

  const kernelBoot = spec().boot;
  const withCommandLine = (commandLine: string): Partial<DomainSpec> =>
    kernelBoot.kind === "kernel" ? { boot: { ...kernelBoot, commandLine } } : {};
  const disk = (path: string): Partial<ResolvedParts> => ({ disks: [{ name: "root", type: "file", path }] });
  const oneDisk = { disks: spec().disks.slice(0, 1) };

  it.each<readonly [string, Partial<DomainSpec>, Partial<ResolvedParts>, string]>([
    ["a line break", withCommandLine("a\nb"), {}, "line breaks"],
    ["a NUL", withCommandLine("a\0b"), {}, "line breaks"],
    ["an escape character", withCommandLine("a\u001bb"), {}, "line breaks"],
    ["half a character", withCommandLine("a\ud800"), {}, "line breaks"],
    ["a path with a line break", oneDisk, disk("/a\nb"), "line breaks"],
    ["a path with a comma at its end", oneDisk, disk("/a,"), "no path that xl can be given"],
    ["a path that is not absolute", oneDisk, disk("a"), "no path that xl can be given"],
    ["a disk without a path", {}, { disks: [] }, "disk 'root' has no path"],
    [
      "a block device that holds qcow2",
      oneDisk,
      { disks: [{ name: "root", type: "block", path: "/d" }] },
      "block device",
    ],
    ["an interface without a bridge", {}, { nics: [] }, "'eth0' has no bridge"],
    [
      "a bridge that says more",
      {},
      { nics: [{ name: "eth0", bridge: "a,script=x" }] },
      "cannot name a bridge",
    ],
    [
      "an address that is none",
      { nics: [{ name: "eth0", network: "lan", macAddress: "x" }] },
      {},
      "MAC address",
    ],
    ["no kernel", {}, { kernel: null }, "kernel has no path"],
    ["a BIOS for pvh", { boot: BIOS }, {}, "a pvh guest has no BIOS"],
    ["a BIOS for pv", { guestType: "pv", boot: BIOS }, {}, "a pv guest has no BIOS"],
    ["pvgrub for hvm", { guestType: "hvm", boot: PVGRUB }, {}, "does not boot by pvgrub"],
    ["pvgrub without a path", { boot: PVGRUB }, { kernel: null }, "kernel has no path"],
  ])("with %s is refused", (_what, change, parts, why) => {
    const write = () => xlConfig(spec(change), { ...PARTS, ...parts });
    expect(write).toThrow(why);
    expect(write).toThrow(expect.objectContaining({ name: "HypervisorError", reason: "invalid-spec" }));
  });
});

describe("a domain's name", () => {
  it.each(["web-1-00000000abcd", "1-00000000abcd", "a", "A.b_c", "000000000000-1"])("%s is one", (name) => {
    expect(checkedDomainName(name)).toBe(name);
  });

  it.each([
    "",
    "12",
    "1.5",
    "Domain-0",
    "domain-0",
    "Xenstore",
    "a b",
    "a/b",
    "-a",
    ".a",
    'a"',
    "a\n",
    "a".repeat(129),
  ])("%j is none", (name) => {
    expect(() => checkedDomainName(name)).toThrow("cannot name a domain");
  });
});

describe("a disk's device", () => {
  it.each([
    [0, false, "xvda"],
    [25, false, "xvdz"],
    [26, false, "xvdaa"],
    [0, true, "hda"],
    [3, true, "hdd"],
    [4, true, "xvde"],
  ])("at place %i (emulated: %s) is %s", (index, isEmulated, device) => {
    expect(diskDevice(index, isEmulated)).toBe(device);
  });
});

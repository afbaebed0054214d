import { parseIpv4 } from "../../lib/ip-address.ts";
import {
  type DomainDisk,
  type DomainNic,
  type DomainSpec,
  HypervisorError,
  type NicGuard,
} from "../hypervisor.ts";
import { AGENT_CHANNEL } from "./agent-channel.ts";
import { MARK_ELEMENT, MARK_NAMESPACE } from "./ownership.ts";
import { writeXml, XmlCharacterError, type XmlNode, xmlNode } from "./xml-writer.ts";

/** What a guest's definition needs to know of its host. */
export interface GuestPlatform {
  readonly domainType: "kvm" | "qemu" | "test";
  readonly architecture: string;
  /** Null where the driver has no machine types. */
  readonly machine: "q35" | null;
  /** Null leaves the choice to the driver. */
  readonly cpu: GuestCpu | null;
  /** Whether the host has libvirt's network filters. */
  readonly hasFilters: boolean;
}

export type GuestCpu =
  | { readonly mode: "host-passthrough" | "host-model" | "maximum" }
  | { readonly mode: "custom"; readonly model: string };

/** What stands behind a disk on the host. */
export interface DiskSource {
  readonly type: "file" | "block";
  readonly path: string;
}

/** A spec's volumes as paths on the host, and where the console's log goes. */
export interface ResolvedPaths {
  /** By disk name. */
  readonly disks: ReadonlyMap<string, DiskSource>;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly consoleLog: string;
}

/** Root ports left free, so that as many devices can be plugged in while the guest runs. */
const SPARE_ROOT_PORTS = 6;
/** virtio-serial, balloon and rng take one each, beside disks and network interfaces. */
const FIXED_PORTS = 3;
/** libvirt's serial of a virtio disk has this many bytes (VIRTIO_BLK_ID_BYTES). */
const SERIAL_MAX_BYTES = 20;

/**
 * Writes a domain's XML. Pure: the same spec gives the same document.
 * @throws HypervisorError `invalid-spec` for text that XML cannot hold, or a disk without a path
 */
export function domainXml(spec: DomainSpec, platform: GuestPlatform, paths: ResolvedPaths): string {
  const memory = String(spec.memoryMib);
  const domain = xmlNode("domain", { type: platform.domainType }, [
    xmlNode("name", {}, spec.name),
    xmlNode("uuid", {}, spec.uuid),
    xmlNode("metadata", {}, [mark(spec)]),
    xmlNode("memory", { unit: "MiB" }, memory),
    xmlNode("currentMemory", { unit: "MiB" }, memory),
    xmlNode("vcpu", { placement: "static" }, String(spec.cpuCount)),
    operatingSystem(spec, platform, paths),
    xmlNode("features", {}, [xmlNode("acpi"), xmlNode("apic")]),
    ...(platform.cpu === null ? [] : [cpu(platform.cpu)]),
    xmlNode("clock", { offset: "utc" }),
    xmlNode("on_poweroff", {}, "destroy"),
    xmlNode("on_reboot", {}, "restart"),
    xmlNode("on_crash", {}, "destroy"),
    xmlNode("devices", {}, devices(spec, platform, paths)),
  ]);
  return written(domain);
}

function written(node: XmlNode): string {
  try {
    return writeXml(node);
  } catch (cause) {
    if (!(cause instanceof XmlCharacterError)) throw cause;
    throw new HypervisorError("invalid-spec", `the specification is refused: ${cause.message}`, { cause });
  }
}

function mark(spec: DomainSpec): XmlNode {
  return xmlNode(`drover:${MARK_ELEMENT}`, {
    "xmlns:drover": MARK_NAMESPACE,
    installation: spec.installationId,
    id: spec.uuid,
  });
}

/** Guests need not be signed. */
const UNSIGNED = xmlNode("firmware", {}, [xmlNode("feature", { enabled: "no", name: "secure-boot" })]);

function operatingSystem(spec: DomainSpec, platform: GuestPlatform, paths: ResolvedPaths): XmlNode {
  const machine = platform.machine === null ? {} : { machine: platform.machine };
  const type = xmlNode("type", { arch: platform.architecture, ...machine }, "hvm");
  if (spec.boot.kind === "firmware") {
    const { firmware } = spec.boot;
    if (firmware === "pvgrub") {
      throw new HypervisorError("invalid-spec", "a guest of QEMU has no pvgrub: give it a BIOS, or UEFI");
    }
    const dev = spec.disks.some(isDisk) ? "hd" : "network";
    const boot = xmlNode("boot", { dev });
    return firmware === "uefi"
      ? xmlNode("os", { firmware: "efi" }, [type, UNSIGNED, boot])
      : xmlNode("os", {}, [type, boot]);
  }
  if (paths.kernel === null) throw missingPath("kernel");
  const { commandLine } = spec.boot;
  return xmlNode("os", {}, [
    type,
    xmlNode("kernel", {}, paths.kernel),
    ...(paths.initrd === null ? [] : [xmlNode("initrd", {}, paths.initrd)]),
    ...(commandLine === "" ? [] : [xmlNode("cmdline", {}, commandLine)]),
  ]);
}

function cpu(choice: GuestCpu): XmlNode {
  switch (choice.mode) {
    case "custom": {
      const model = xmlNode("model", { fallback: "forbid" }, choice.model);
      return xmlNode("cpu", { mode: "custom", match: "exact" }, [model]);
    }
    case "host-passthrough":
    case "maximum":
      return xmlNode("cpu", { mode: choice.mode, check: "none", migratable: "on" });
    case "host-model":
      return xmlNode("cpu", { mode: choice.mode });
  }
}

function isDisk({ kind }: DomainDisk): boolean {
  return kind === "disk";
}

function devices(spec: DomainSpec, platform: GuestPlatform, paths: ResolvedPaths): readonly XmlNode[] {
  const disks = spec.disks.filter(isDisk);
  const cdroms = spec.disks.filter((item) => !isDisk(item));
  const scsi = cdroms.length > 0 ? [xmlNode("controller", { type: "scsi", model: "virtio-scsi" })] : [];
  const ports = disks.length + scsi.length + spec.nics.length + FIXED_PORTS + SPARE_ROOT_PORTS;
  return [
    // The guest gets no USB devices: without the controller it starts faster.
    xmlNode("controller", { type: "usb", model: "none" }),
    xmlNode("controller", { type: "pci", index: "0", model: "pcie-root" }),
    ...Array.from({ length: ports }, (_, port) =>
      xmlNode("controller", { type: "pci", index: String(port + 1), model: "pcie-root-port" }),
    ),
    ...scsi,
    ...disks.map((item, index) => disk(item, index, paths)),
    ...cdroms.map((item, index) => cdrom(item, index, paths)),
    ...spec.nics.map((nic) => networkInterface(nic, platform)),
    ...consoles(paths),
    ...agentChannel(platform),
    xmlNode("graphics", { type: "vnc", port: "-1", autoport: "yes", listen: "127.0.0.1" }),
    xmlNode("video", {}, [xmlNode("model", { type: "vga", vram: "8192" })]),
    xmlNode("memballoon", { model: "virtio" }),
    xmlNode("rng", { model: "virtio" }, [xmlNode("backend", { model: "random" }, "/dev/urandom")]),
    xmlNode("panic", { model: "isa" }),
  ];
}

/** libvirt's mock has no guest, and so no agent in it. */
function agentChannel({ domainType }: GuestPlatform): readonly XmlNode[] {
  if (domainType === "test") return [];
  const target = xmlNode("target", { type: "virtio", name: AGENT_CHANNEL });
  return [xmlNode("channel", { type: "unix" }, [target])];
}

/** The serial console with its log. */
function consoles(paths: ResolvedPaths): readonly XmlNode[] {
  return [
    xmlNode("serial", { type: "pty" }, [
      xmlNode("log", { file: paths.consoleLog, append: "on" }),
      xmlNode("target", { port: "0" }),
    ]),
    xmlNode("console", { type: "pty" }, [xmlNode("target", { type: "serial", port: "0" })]),
  ];
}

function disk(item: DomainDisk, index: number, paths: ResolvedPaths): XmlNode {
  return diskNode(item, foundOf(item, paths), diskTarget(index));
}

function diskNode(item: DomainDisk, found: DiskSource, target: string): XmlNode {
  return xmlNode("disk", { type: found.type, device: "disk" }, [
    xmlNode("driver", { name: "qemu", type: item.format, discard: "unmap", error_policy: "stop" }),
    sourceNode(found),
    xmlNode("target", { dev: target, bus: "virtio" }),
    xmlNode("serial", {}, diskSerial(item.name)),
  ]);
}

/** Writes the XML of one disk, as it is attached and detached by itself. */
export function diskXml(item: DomainDisk, source: DiskSource, target: string): string {
  return writeXml(diskNode(item, source, target));
}

/** On virtio-scsi: kernels made for virtual machines have it, but not the AHCI that would be q35's own. */
function cdrom(item: DomainDisk, index: number, paths: ResolvedPaths): XmlNode {
  const found = foundOf(item, paths);
  return xmlNode("disk", { type: found.type, device: "cdrom" }, [
    xmlNode("driver", { name: "qemu", type: item.format }),
    sourceNode(found),
    xmlNode("target", { dev: diskTarget(index, "sd"), bus: "scsi" }),
    xmlNode("readonly"),
    xmlNode("serial", {}, diskSerial(item.name)),
  ]);
}

function foundOf(item: DomainDisk, paths: ResolvedPaths): DiskSource {
  const found = paths.disks.get(item.name);
  if (found === undefined) throw missingPath(`disk '${item.name}'`);
  return found;
}

function sourceNode({ type, path }: DiskSource): XmlNode {
  return xmlNode("source", type === "file" ? { file: path } : { dev: path });
}

/** One NIC by itself, as it is plugged in. Throws HypervisorError `invalid-spec`. */
export function nicXml(nic: DomainNic, platform: Pick<GuestPlatform, "hasFilters">): string {
  return written(networkInterface(nic, platform));
}

function networkInterface(nic: DomainNic, { hasFilters }: Pick<GuestPlatform, "hasFilters">): XmlNode {
  return xmlNode("interface", { type: "network" }, [
    xmlNode("mac", { address: nic.macAddress }),
    xmlNode("source", { network: nic.network }),
    xmlNode("model", { type: "virtio" }),
    ...(hasFilters && nic.guard !== undefined ? [filterOf(nic.guard)] : []),
  ]);
}

/**
 * libvirt's own filters. `clean-traffic` lets IPv4 and ARP pass only: where there is IPv6 the MAC address alone is
 * guarded.
 */
function filterOf({ addresses }: NicGuard): XmlNode {
  const isIpv4Only = addresses.length > 0 && addresses.every((address) => parseIpv4(address) !== null);
  if (!isIpv4Only) return xmlNode("filterref", { filter: "no-mac-spoofing" });
  const parameters = addresses.map((value) => xmlNode("parameter", { name: "IP", value }));
  return xmlNode("filterref", { filter: "clean-traffic" }, parameters);
}

/** `vda`, `vdb` … `vdz`, `vdaa` … by the disk's place in the list. */
export function diskTarget(index: number, prefix: "vd" | "sd" = "vd"): string {
  const letter = String.fromCharCode(97 + (index % 26));
  return index < 26 ? `${prefix}${letter}` : `${diskTarget(Math.floor(index / 26) - 1, prefix)}${letter}`;
}

/** What the guest sees under /dev/disk/by-id: the disk's name, which stays the same wherever the disk stands. */
function diskSerial(name: string): string {
  return name.slice(0, SERIAL_MAX_BYTES);
}

function missingPath(what: string): HypervisorError {
  return new HypervisorError("invalid-spec", `the ${what} has no path on the host`);
}

import { create } from "xmlbuilder2";
import { type DomainDisk, type DomainNic, type DomainSpec, HypervisorError } from "../hypervisor.ts";
import { MARK_ELEMENT, MARK_NAMESPACE } from "./ownership.ts";

/** What a guest's definition needs to know of its host. */
export interface GuestPlatform {
  readonly domainType: "kvm" | "qemu" | "test";
  readonly architecture: string;
  /** Null where the driver has no machine types. */
  readonly machine: "q35" | null;
  /** Null leaves the choice to the driver. */
  readonly cpu: GuestCpu | null;
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

/** An element's content as xmlbuilder2 takes it: attributes begin with `@`. */
type Content = string | { readonly [name: string]: Content | readonly Content[] };

/** Root ports left free, so that as many devices can be plugged in while the guest runs. */
const SPARE_ROOT_PORTS = 6;
/** virtio-serial, balloon and rng take one each, beside disks and network interfaces. */
const FIXED_PORTS = 3;
/** libvirt's serial of a virtio disk has this many bytes (VIRTIO_BLK_ID_BYTES). */
const SERIAL_MAX_BYTES = 20;

/**
 * Writes a domain's XML. Pure: the same spec gives the same document, save what libvirt fills in.
 * @throws HypervisorError `invalid-spec` for text that XML cannot hold, or a disk without a path
 */
export function domainXml(spec: DomainSpec, platform: GuestPlatform, paths: ResolvedPaths): string {
  const mark = `drover:${MARK_ELEMENT}`;
  const domain: Content = {
    "@type": platform.domainType,
    name: spec.name,
    uuid: spec.uuid,
    metadata: {
      [mark]: {
        "@xmlns:drover": MARK_NAMESPACE,
        "@installation": spec.installationId,
        "@id": spec.uuid,
      },
    },
    memory: { "@unit": "MiB", "#": String(spec.memoryMib) },
    currentMemory: { "@unit": "MiB", "#": String(spec.memoryMib) },
    vcpu: { "@placement": "static", "#": String(spec.cpuCount) },
    os: operatingSystem(spec, platform, paths),
    features: { acpi: {}, apic: {} },
    ...(platform.cpu === null ? {} : { cpu: cpu(platform.cpu) }),
    clock: { "@offset": "utc" },
    on_poweroff: "destroy",
    on_reboot: "restart",
    on_crash: "destroy",
    devices: devices(spec, paths),
  };
  try {
    return create({ domain }).end({ headless: true, prettyPrint: true, wellFormed: true });
  } catch (cause) {
    throw new HypervisorError(
      "invalid-spec",
      "the specification holds a character that libvirt's XML cannot carry",
      {
        cause,
      },
    );
  }
}

function operatingSystem(spec: DomainSpec, platform: GuestPlatform, paths: ResolvedPaths): Content {
  const type: Content = {
    "@arch": platform.architecture,
    ...(platform.machine === null ? {} : { "@machine": platform.machine }),
    "#": "hvm",
  };
  if (spec.boot.kind === "firmware") return { type, boot: { "@dev": "hd" } };
  if (paths.kernel === null) throw missingPath("kernel");
  return {
    type,
    kernel: paths.kernel,
    ...(paths.initrd === null ? {} : { initrd: paths.initrd }),
    ...(spec.boot.commandLine === "" ? {} : { cmdline: spec.boot.commandLine }),
  };
}

function cpu(choice: GuestCpu): Content {
  switch (choice.mode) {
    case "custom":
      return {
        "@mode": "custom",
        "@match": "exact",
        model: { "@fallback": "forbid", "#": choice.model },
      };
    case "host-passthrough":
    case "maximum":
      return { "@mode": choice.mode, "@check": "none", "@migratable": "on" };
    case "host-model":
      return { "@mode": choice.mode };
  }
}

function devices(spec: DomainSpec, paths: ResolvedPaths): Content {
  const ports = spec.disks.length + spec.nics.length + FIXED_PORTS + SPARE_ROOT_PORTS;
  return {
    controller: [
      // The guest gets no USB devices: without the controller it starts faster.
      { "@type": "usb", "@model": "none" },
      { "@type": "pci", "@index": "0", "@model": "pcie-root" },
      ...Array.from({ length: ports }, (_, index) => ({
        "@type": "pci",
        "@index": String(index + 1),
        "@model": "pcie-root-port",
      })),
    ],
    disk: spec.disks.map((item, index) => disk(item, index, paths)),
    interface: spec.nics.map(networkInterface),
    serial: {
      "@type": "pty",
      log: { "@file": paths.consoleLog, "@append": "on" },
      target: { "@port": "0" },
    },
    console: { "@type": "pty", target: { "@type": "serial", "@port": "0" } },
    channel: { "@type": "unix", target: { "@type": "virtio", "@name": "org.qemu.guest_agent.0" } },
    graphics: { "@type": "vnc", "@port": "-1", "@autoport": "yes", "@listen": "127.0.0.1" },
    video: { model: { "@type": "vga", "@vram": "8192" } },
    memballoon: { "@model": "virtio" },
    rng: { "@model": "virtio", backend: { "@model": "random", "#": "/dev/urandom" } },
    panic: { "@model": "isa" },
  };
}

function disk(item: DomainDisk, index: number, paths: ResolvedPaths): Content {
  const source = paths.disks.get(item.name);
  if (source === undefined) throw missingPath(`disk '${item.name}'`);
  return {
    "@type": source.type,
    "@device": "disk",
    driver: { "@name": "qemu", "@type": item.format, "@discard": "unmap", "@error_policy": "stop" },
    source: source.type === "file" ? { "@file": source.path } : { "@dev": source.path },
    target: { "@dev": diskTarget(index), "@bus": "virtio" },
    serial: diskSerial(item.name),
  };
}

function networkInterface(nic: DomainNic): Content {
  return {
    "@type": "network",
    mac: { "@address": nic.macAddress },
    source: { "@network": nic.network },
    model: { "@type": "virtio" },
  };
}

/** `vda`, `vdb` … `vdz`, `vdaa` … by the disk's place in the list. */
export function diskTarget(index: number): string {
  const letter = String.fromCharCode(97 + (index % 26));
  return index < 26 ? `vd${letter}` : `${diskTarget(Math.floor(index / 26) - 1)}${letter}`;
}

/** What the guest sees under /dev/disk/by-id: the disk's name, which stays the same wherever the disk stands. */
function diskSerial(name: string): string {
  return name.slice(0, SERIAL_MAX_BYTES);
}

function missingPath(what: string): HypervisorError {
  return new HypervisorError("invalid-spec", `the ${what} has no path on the host`);
}

import { type DomainDisk, type DomainNic, type DomainSpec, HypervisorError } from "../hypervisor.ts";
import { isHostDomainName } from "./host-domain.ts";
import { isBridgeName } from "./uri.ts";

/** What stands behind a disk on the host. */
export interface DiskSource {
  readonly type: "file" | "block";
  /** Absolute. */
  readonly path: string;
}

/** A spec's volumes and networks as they are called on the host. */
export interface ResolvedParts {
  readonly disks: readonly (DiskSource & { readonly name: string })[];
  readonly nics: readonly { readonly name: string; readonly bridge: string }[];
  readonly kernel: string | null;
  readonly initrd: string | null;
}

type Value = string | number | readonly string[];

/** QEMU emulates this many IDE disks. */
const IDE_DISKS = 4;
const DOMAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const NUMBER = /^[0-9.]+$/;
const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;

/**
 * Writes a domain's configuration for xl. Pure: the same spec gives the same text. `serialLog` is the file to which an
 * emulated machine's serial port is logged; null: to none.
 * @throws HypervisorError `invalid-spec` for what xl's syntax cannot hold, or what the guest type cannot do
 */
export function xlConfig(spec: DomainSpec, parts: ResolvedParts, serialLog: string | null = null): string {
  const settings: readonly (readonly [string, Value])[] = [
    ["name", checkedDomainName(spec.name)],
    ["uuid", spec.uuid],
    ["type", spec.guestType],
    ["vcpus", spec.cpuCount],
    ["memory", spec.memoryMib],
    ["maxmem", spec.memoryMib],
    ...boot(spec, parts),
    ["disk", spec.disks.map((disk, index) => diskSpecification(disk, index, spec, parts))],
    ["vif", spec.nics.map((nic) => nicSpecification(nic, spec, parts))],
    ...(spec.guestType === "hvm" ? emulatedDevices(serialLog) : []),
    ["on_poweroff", "destroy"],
    ["on_reboot", "restart"],
    // What went wrong stays to be seen, until the domain is started again or its power is cut.
    ["on_crash", "preserve"],
    ["on_watchdog", "preserve"],
  ];
  return settings.map(([name, value]) => `${name} = ${writeValue(value)}\n`).join("");
}

/**
 * A serial port beside Xen's own console, and a screen on the loopback only. xenconsoled does not hear the serial port, so
 * QEMU itself logs it, under the label by which libxl finds it (libxl_qmp.c: `serial0`).
 */
function emulatedDevices(serialLog: string | null): readonly (readonly [string, Value])[] {
  return [
    serialLog === null
      ? ["serial", "pty"]
      : [
          "device_model_args_hvm",
          [
            "-chardev",
            `pty,id=serial0,logappend=on,logfile=${qemuOption(checkedPath(serialLog))}`,
            "-serial",
            "chardev:serial0",
          ],
        ],
    ["vnc", 1],
    ["vnclisten", "127.0.0.1"],
    ["vncunused", 1],
  ];
}

/** In QEMU's options a comma ends a value; two are one. */
function qemuOption(value: string): string {
  return value.replaceAll(",", ",,");
}

/**
 * xl takes a name of digits alone for a domain's id, and its own domains' names for those domains.
 * @throws HypervisorError `invalid-spec` for a name that is none
 */
export function checkedDomainName(name: string): string {
  if (DOMAIN_NAME.test(name) && !NUMBER.test(name) && !isHostDomainName(name)) return name;
  throw refused(`'${name.slice(0, 80)}' cannot name a domain of Xen's`);
}

function boot(spec: DomainSpec, parts: ResolvedParts): readonly (readonly [string, Value])[] {
  if (spec.boot.kind === "kernel") return kernelBoot(spec.boot.commandLine, parts);
  const { guestType } = spec;
  switch (spec.boot.firmware) {
    case "bios":
      if (guestType !== "hvm")
        throw refused(`a ${guestType} guest has no BIOS: boot it by pvgrub or a kernel`);
      return [["boot", spec.disks.some(({ kind }) => kind === "disk") ? "c" : "n"]];
    case "uefi":
      throw refused("guests on Xen have no UEFI here: boot them by a BIOS, by pvgrub or a kernel");
    case "pvgrub":
      if (guestType === "hvm") throw refused("an hvm guest has a BIOS, and does not boot by pvgrub");
      return kernelBoot("", parts);
  }
}

function kernelBoot(
  commandLine: string,
  { kernel, initrd }: ResolvedParts,
): readonly (readonly [string, Value])[] {
  if (kernel === null) throw refused("the kernel has no path on the host");
  return [
    ["kernel", checkedPath(kernel)],
    ...(initrd === null ? [] : [["ramdisk", checkedPath(initrd)] as const]),
    ...(commandLine === "" ? [] : [["cmdline", commandLine] as const]),
  ];
}

/** `target` comes last: it takes all that follows, commas too. */
function diskSpecification(disk: DomainDisk, index: number, spec: DomainSpec, parts: ResolvedParts): string {
  const source = parts.disks.find(({ name }) => name === disk.name);
  if (source === undefined) throw refused(`the disk '${disk.name}' has no path on the host`);
  if (source.type === "block" && disk.format !== "raw") {
    throw refused(`the disk '${disk.name}' is a block device, which holds no ${disk.format}`);
  }
  const backend = source.type === "file" ? "qdisk" : "phy";
  const vdev = diskDevice(index, spec.guestType === "hvm");
  const kind = diskKind(disk, spec.guestType);
  return `format=${disk.format},vdev=${vdev},${kind},backendtype=${backend},target=${checkedPath(source.path)}`;
}

/** Only an emulated machine has a drive for discs; for the others a disc is a disk that cannot be written. */
function diskKind({ kind }: DomainDisk, guestType: DomainSpec["guestType"]): string {
  if (kind === "disk") return "access=w";
  return guestType === "hvm" ? "access=r,devtype=cdrom" : "access=r";
}

/**
 * `xvda`, `xvdb` … `xvdz`, `xvdaa` … by the disk's place. The first four of an hvm guest are IDE disks too (`hda` …),
 * for a BIOS sees no others; a guest with drivers for Xen finds them as `xvda` … all the same.
 */
export function diskDevice(index: number, isEmulated: boolean): string {
  return `${isEmulated && index < IDE_DISKS ? "hd" : "xvd"}${diskLetters(index)}`;
}

function diskLetters(index: number): string {
  const letter = String.fromCharCode(97 + (index % 26));
  return index < 26 ? letter : `${diskLetters(Math.floor(index / 26) - 1)}${letter}`;
}

function nicSpecification(nic: DomainNic, spec: DomainSpec, parts: ResolvedParts): string {
  const bridge = parts.nics.find(({ name }) => name === nic.name)?.bridge;
  if (bridge === undefined) throw refused(`the network interface '${nic.name}' has no bridge on the host`);
  if (!isBridgeName(bridge)) throw refused(`'${bridge.slice(0, 80)}' cannot name a bridge`);
  if (!MAC_ADDRESS.test(nic.macAddress)) throw refused(`'${nic.macAddress.slice(0, 80)}' is no MAC address`);
  const model = spec.guestType === "hvm" ? ",model=e1000" : "";
  return `mac=${nic.macAddress},bridge=${bridge}${model}`;
}

function checkedPath(path: string): string {
  // A comma at its end would be cut off.
  if (path.startsWith("/") && !path.endsWith(",")) return path;
  throw refused(`'${path.slice(0, 200)}' is no path that xl can be given`);
}

function writeValue(value: Value): string {
  if (typeof value === "string") return writeString(value);
  if (typeof value === "number") return String(value);
  return `[${value.map(writeString).join(", ")}]`;
}

/** Control characters: xl's syntax has none in a string, and its escapes for them differ between its versions. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/** Between double quotes xl's reader takes all as it is, save the backslash, which makes the next one plain. */
function writeString(text: string): string {
  const control = CONTROL.exec(text);
  if (control !== null || !text.isWellFormed()) {
    throw refused(
      `text with line breaks or control characters cannot be given to xl: ${JSON.stringify(text.slice(0, 80))}`,
    );
  }
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

function refused(why: string): HypervisorError {
  return new HypervisorError("invalid-spec", `the specification is refused: ${why}`);
}

import type { Capability, GuestType, HostFacts } from "../hypervisor.ts";
import type { XenInfo } from "./parse-info.ts";
import { PVGRUB_PATHS } from "./pvgrub.ts";

/** What every guest on Xen can do through xl. */
const COMMON: readonly Capability[] = [
  "start",
  "stop",
  "gracefulStop",
  "reboot",
  "reset",
  "pause",
  "save",
  "consoleLog",
  "serialConsole",
  "volumes",
  "directKernel",
  "events",
];

/** All that a guest of a type can do, on a host that has everything. */
export function capabilitiesOf(guestType: GuestType): readonly Capability[] {
  return guestType === "hvm" ? [...COMMON, "vnc", "firmwareBios"] : [...COMMON, "firmwarePvgrub"];
}

/** What a host has, of what its guests can do without. */
export interface HostEquipment {
  readonly info: Pick<XenInfo, "virtualization" | "guestInterfaces">;
  /** Paths of the files that are there, among those that the host program looks for. */
  readonly files: readonly string[];
  readonly logsConsoles: boolean;
}

/** The guest types that a host runs, with what each can do there. */
export function offeredGuestTypes(host: HostEquipment): HostFacts["guestTypes"] {
  return guestTypesOf(host).map((guestType) => ({
    guestType,
    capabilities: capabilitiesOf(guestType).filter((ability) => isOffered(ability, guestType, host)),
  }));
}

function isOffered(
  ability: Capability,
  guestType: GuestType,
  { files, logsConsoles }: HostEquipment,
): boolean {
  if (ability === "consoleLog") return logsConsoles;
  if (ability === "firmwarePvgrub") return guestType !== "hvm" && files.includes(PVGRUB_PATHS[guestType]);
  return true;
}

/**
 * In the order in which a guest's type is chosen where nothing is said: pvh is isolated by the hardware and has no
 * emulated devices, pv needs no such hardware, and hvm, which alone has a BIOS, emulates a whole machine.
 */
function guestTypesOf({ info, files }: HostEquipment): readonly GuestType[] {
  const hasHvm = info.virtualization.has("hvm");
  const hasPv = info.virtualization.has("pv") || info.guestInterfaces.has("xen-3.0-x86_64");
  const hasDeviceModel =
    files.some((file) => file.endsWith("hvmloader")) && files.some((file) => file.includes("qemu-system"));
  return [
    ...(hasHvm ? (["pvh"] as const) : []),
    ...(hasPv ? (["pv"] as const) : []),
    ...(hasHvm && hasDeviceModel ? (["hvm"] as const) : []),
  ];
}

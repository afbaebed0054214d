import {
  connectGetCapabilities,
  connectGetDomainCapabilities,
  nwfilterLookupByName,
} from "../../libvirt-rpc/index.ts";
import { type Accelerator, type Call, HypervisorError } from "../hypervisor.ts";
import type { GuestCpu, GuestPlatform } from "./domain-xml.ts";
import { isNotFound, isUnsupported } from "./errors.ts";
import type { LibvirtDriverType } from "./host-context.ts";
import type { HostCalls } from "./lanes.ts";
import { type Capabilities, parseCapabilities } from "./parse-capabilities.ts";
import { type DomainCapabilities, parseDomainCapabilities } from "./parse-domain-capabilities.ts";

/** The one architecture whose guests we define; libvirt's mock has a 32-bit one of its own. */
const ARCHITECTURE = "x86_64";
const MACHINE = "q35";

/**
 * CPU models for guests without acceleration, the best first. Westmere is the newest that QEMU emulates wholly
 * without AVX: it satisfies x86-64-v2, which current distributions want, and starts as fast as qemu64. `maximum`
 * would bring emulated AVX, which is young and slow.
 */
const EMULATED_MODELS = ["Westmere", "Nehalem", "qemu64"] as const;

export interface Platform extends GuestPlatform {
  readonly capabilities: Capabilities;
  readonly hasUefi: boolean;
}

/**
 * Finds out how guests are to be defined on a host.
 * @throws HypervisorError `unsupported` when the host lacks the wanted accelerator, or guests of our kind
 */
export async function readPlatform(
  calls: HostCalls,
  driverType: LibvirtDriverType,
  accelerator: Accelerator,
  call: Call,
): Promise<Platform> {
  const { capabilities: xml } = await calls.read(connectGetCapabilities, undefined, call);
  const capabilities = parseCapabilities(xml);
  if (driverType === "TEST") {
    const architecture = capabilities.guests.find(({ osType }) => osType === "hvm")?.architecture;
    if (architecture === undefined) throw noGuests("hvm");
    const lacks = { hasUefi: false, hasFilters: false };
    return { capabilities, domainType: "test", architecture, machine: null, cpu: null, ...lacks };
  }
  const domainType = await chooseDomainType(calls, capabilities, accelerator, call);
  const ability = await readDomainCapabilities(calls, domainType, call);
  const cpu = domainType === "kvm" ? hostCpu(ability) : emulatedCpu(ability);
  const { hasUefi } = ability;
  const hasFilters = await readHasFilters(calls, call);
  return { capabilities, domainType, architecture: ARCHITECTURE, machine: MACHINE, cpu, hasUefi, hasFilters };
}

async function chooseDomainType(
  calls: HostCalls,
  capabilities: Capabilities,
  accelerator: Accelerator,
  call: Call,
): Promise<"kvm" | "qemu"> {
  const offered = capabilities.guests
    .filter(({ osType, architecture }) => osType === "hvm" && architecture === ARCHITECTURE)
    .flatMap(({ domainTypes }) => domainTypes);
  if (offered.length === 0) throw noGuests(`hvm/${ARCHITECTURE}`);
  const isKvmUsable = accelerator !== "tcg" && offered.includes("kvm") && (await hasKvm(calls, call));
  if (isKvmUsable) return "kvm";
  if (accelerator === "kvm") {
    throw new HypervisorError(
      "unsupported",
      "the host offers no hardware acceleration (KVM): set its accelerator to 'auto' or 'tcg', or enable virtualization in its firmware",
    );
  }
  if (!offered.includes("qemu")) throw noGuests("qemu");
  return "qemu";
}

/** The list of guest types tells what was there when libvirt last looked; this call fails unless KVM works now. */
async function hasKvm(calls: HostCalls, call: Call): Promise<boolean> {
  try {
    return (await readDomainCapabilities(calls, "kvm", call)).domainType === "kvm";
  } catch (error) {
    if (
      error instanceof HypervisorError &&
      (error.reason === "invalid-spec" || error.reason === "unsupported")
    ) {
      return false;
    }
    throw error;
  }
}

async function readDomainCapabilities(
  calls: HostCalls,
  virtType: "kvm" | "qemu",
  call: Call,
): Promise<DomainCapabilities> {
  const args = { emulatorBin: null, arch: ARCHITECTURE, machine: MACHINE, virtType, flags: 0 };
  const { capabilities } = await calls.read(connectGetDomainCapabilities, args, call);
  return parseDomainCapabilities(capabilities);
}

/** The filters that come with libvirt may be a package of their own, or missing in a daemon that has no such driver. */
async function readHasFilters(calls: HostCalls, call: Call): Promise<boolean> {
  try {
    await calls.read(nwfilterLookupByName, { name: "clean-traffic" }, call);
    return true;
  } catch (error) {
    if (isNotFound(error) || isUnsupported(error)) return false;
    throw error;
  }
}

function hostCpu({ cpuModes }: DomainCapabilities): GuestCpu {
  return { mode: cpuModes.has("host-passthrough") ? "host-passthrough" : "host-model" };
}

function emulatedCpu({ usableCpuModels }: DomainCapabilities): GuestCpu {
  const model = EMULATED_MODELS.find((candidate) => usableCpuModels.has(candidate));
  return model === undefined ? { mode: "maximum" } : { mode: "custom", model };
}

function noGuests(kind: string): HypervisorError {
  return new HypervisorError("unsupported", `the host's libvirt offers no guests of type ${kind}`);
}

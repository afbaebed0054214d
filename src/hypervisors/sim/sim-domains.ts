import { bootCapability } from "../capabilities.ts";
import {
  type DomainNic,
  type DomainSpec,
  type Hypervisor,
  HypervisorError,
  type ObservedDomain,
  type ObservedPower,
  type VolumeRef,
} from "../hypervisor.ts";
import { declaredCapabilities } from "./sim-facts.ts";

/** What the world keeps of a specification: what its next start needs and shows. */
export interface SimDefinition {
  readonly guestType: string;
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly volumes: readonly VolumeRef[];
  readonly networks: readonly string[];
  readonly nics: readonly Pick<DomainNic, "network" | "macAddress">[];
  readonly commandLine: string | null;
}

/** Checks a specification as the host's toolstack would, and takes from it what the world keeps. */
export function definitionOf(spec: DomainSpec, hypervisor: Hypervisor): SimDefinition {
  const abilities = declaredCapabilities(hypervisor, spec.guestType);
  if (abilities.size === 0) {
    throw new HypervisorError(
      "invalid-spec",
      `a ${hypervisor} host runs no guests of type ${spec.guestType}`,
    );
  }
  const firmware = spec.boot.kind === "firmware" ? spec.boot.firmware : null;
  if (!abilities.has(bootCapability(firmware))) {
    throw new HypervisorError(
      "invalid-spec",
      `guests of type ${spec.guestType} do not boot by ${firmware ?? "a kernel that is given"}`,
    );
  }
  if (!isCount(spec.cpuCount) || !isCount(spec.memoryMib)) {
    throw new HypervisorError("invalid-spec", "a domain needs at least one CPU and one MiB of memory");
  }
  const disks = spec.disks.map(({ volume }) => volume);
  const { boot } = spec;
  const kernels = boot.kind === "kernel" ? [boot.kernel, ...(boot.initrd === null ? [] : [boot.initrd])] : [];
  return {
    guestType: spec.guestType,
    cpuCount: spec.cpuCount,
    memoryMib: spec.memoryMib,
    volumes: [...disks, ...kernels].map(({ pool, name }) => ({ pool, name })),
    networks: spec.nics.map(({ network }) => network),
    nics: spec.nics.map(({ network, macAddress }) => ({ network, macAddress })),
    commandLine: boot.kind === "kernel" ? boot.commandLine : null,
  };
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value < 2 ** 31;
}

/** A domain as the world's statements give it: an array, which is half the size of an object in large inventories. */
export type DomainTuple = readonly [
  uuid: string,
  name: string,
  power: ObservedPower,
  reason: string | null,
  cpuCount: number,
  memoryMib: number,
  installationId: string | null,
  vmId: string | null,
  autostart: boolean,
];

export function observedDomainOf(tuple: DomainTuple): ObservedDomain {
  const [uuid, name, power, reason, cpuCount, memoryMib, installationId, vmId, autostart] = tuple;
  return { uuid, name, power, reason, cpuCount, memoryMib, installationId, vmId, autostart };
}

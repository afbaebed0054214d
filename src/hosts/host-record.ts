import type { DriverName, HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { HostId } from "../lib/ids.ts";

/** `connecting`: never answered so far; `ready`: connected and inventoried; `unreachable`: its error says why. */
export type HostState = "connecting" | "ready" | "unreachable";

/** A host as the inventory holds it, without its credentials. */
export interface HostRecord {
  readonly id: HostId;
  readonly name: string;
  readonly uri: string;
  readonly driver: DriverName;
  readonly hypervisor: Hypervisor;
  readonly accelerator: "auto" | "kvm" | "tcg";
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly schedulable: boolean;
  readonly state: HostState;
  readonly error: ErrorBody | null;
  readonly facts: HostFacts | null;
  readonly policy: HostPolicy;
  /** Null until its probe told what it has. */
  readonly capacity: HostCapacity | null;
  readonly inventorySeq: number;
  readonly inventoryAt: Date | null;
  readonly lastSeenAt: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** What is kept back for the host itself, and how far the rest may be promised more than once. */
export interface HostPolicy {
  readonly reserveCpuCount: number;
  readonly reserveMemoryMib: number;
  readonly cpuOvercommit: number;
  readonly memoryOvercommit: number;
}

/** What a host has and what of it may be promised. */
export interface HostCapacity extends HostPolicy {
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly unmanagedCpuCount: number;
  readonly unmanagedMemoryMib: number;
}

/**
 * What may be promised to VMs in all: the total less the host's reserve and what unmanaged domains use, times the
 * overcommit. Xen's memory is never overcommitted.
 */
export function allocatable(
  capacity: HostCapacity,
  hypervisor: Hypervisor,
): { cpuCount: number; memoryMib: number } {
  const cpus = capacity.cpuCount - capacity.reserveCpuCount;
  const memory = capacity.memoryMib - capacity.reserveMemoryMib;
  const memoryOvercommit = hypervisor === "xen" ? 1 : capacity.memoryOvercommit;
  return {
    cpuCount: Math.max(0, promised(cpus, capacity.cpuOvercommit) - capacity.unmanagedCpuCount),
    memoryMib: Math.max(0, promised(memory, memoryOvercommit) - capacity.unmanagedMemoryMib),
  };
}

/** Whole units; 100 times 1.15 is 115, though floating point says a hair less. */
function promised(amount: number, overcommit: number): number {
  return Math.floor(amount * overcommit + 1e-6);
}

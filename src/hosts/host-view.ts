import type { Sql } from "../db/transaction.ts";
import { timestamp } from "../http/schemas.ts";
import { unfinishedOperationsOf } from "../operations/operation-subject-store.ts";
import { allocatable, type HostRecord } from "./host-record.ts";
import type { Host } from "./host-schemas.ts";
import { type ReservedSum, reservedOn } from "./host-store.ts";

/** Hosts as the API shows them, in the given order: two look-ups, however many hosts. */
export async function viewHosts(db: Sql, hosts: readonly HostRecord[]): Promise<Host[]> {
  const ids = hosts.map(({ id }) => id);
  const [reserved, operations] = await Promise.all([
    reservedOn(db, ids),
    unfinishedOperationsOf(db, "host", ids),
  ]);
  return hosts.map((host) => viewOf(host, reserved.get(host.id), operations.get(host.id) ?? []));
}

export async function viewHost(db: Sql, host: HostRecord): Promise<Host> {
  const [view] = await viewHosts(db, [host]);
  if (view === undefined) throw new Error("a view of one host is one view");
  return view;
}

function viewOf(host: HostRecord, reserved: ReservedSum | undefined, operations: readonly string[]): Host {
  const { capacity, policy } = host;
  return {
    id: host.id,
    name: host.name,
    labels: host.labels,
    generation: host.generation,
    createdAt: timestamp(host.createdAt),
    updatedAt: timestamp(host.updatedAt),
    spec: {
      uri: host.uri,
      accelerator: host.accelerator,
      schedulable: host.schedulable,
      reserve: { cpuCount: policy.reserveCpuCount, memoryMib: policy.reserveMemoryMib },
      overcommit: { cpu: policy.cpuOvercommit, memory: policy.memoryOvercommit },
    },
    status: {
      state: host.state,
      error: host.error,
      driver: host.driver,
      hypervisor: host.hypervisor,
      facts: factsOf(host),
      allocatable: capacity === null ? null : allocatable(capacity, host.hypervisor),
      reserved: { cpuCount: reserved?.cpuCount ?? 0, memoryMib: reserved?.memoryMib ?? 0 },
      unmanaged: { cpuCount: capacity?.unmanagedCpuCount ?? 0, memoryMib: capacity?.unmanagedMemoryMib ?? 0 },
      vmCount: reserved?.vmCount ?? 0,
      inventorySeq: host.inventorySeq,
      inventoryAt: timestamp(host.inventoryAt),
      lastSeenAt: timestamp(host.lastSeenAt),
      operations: [...operations],
    },
  };
}

function factsOf({ facts }: HostRecord): Host["status"]["facts"] {
  if (facts === null) return null;
  return {
    ...facts,
    numaCells: facts.numaCells.map((cell) => ({ ...cell, cpus: [...cell.cpus] })),
    guestTypes: facts.guestTypes.map(({ guestType, capabilities }) => ({
      guestType,
      capabilities: [...capabilities],
    })),
  };
}

import type { NumaCell } from "../hypervisor.ts";
import {
  attribute,
  child,
  childrenNamed,
  parseXml,
  sizeBytes,
  textAt,
  unreadable,
  wholeNumber,
  type XmlElement,
} from "./xml.ts";

/** What we take from a host's capabilities. */
export interface Capabilities {
  /** The machine's own UUID; null where the driver tells none. */
  readonly hostUuid: string | null;
  readonly architecture: string;
  /** libvirt's name for the CPU; null where it knows none. */
  readonly cpuModel: string | null;
  /** Null where the CPUs do not tell their places. */
  readonly topology: CpuTopology | null;
  readonly numaCells: readonly NumaCell[];
  readonly guests: readonly GuestSupport[];
}

export interface CpuTopology {
  readonly sockets: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
}

/** One kind of guest that the host offers. */
export interface GuestSupport {
  /** `hvm`, `xen` and so on. */
  readonly osType: string;
  readonly architecture: string;
  /** `kvm`, `qemu`, `test` and so on. */
  readonly domainTypes: readonly string[];
}

const DOCUMENT = "capabilities";

/** Reads a host's capabilities. */
export function parseCapabilities(xml: string): Capabilities {
  const root = parseXml(xml, DOCUMENT);
  const host = child(root, "host");
  const architecture = host === undefined ? undefined : textAt(host, "cpu", "arch");
  if (host === undefined || architecture === undefined)
    throw unreadable(DOCUMENT, "it names no architecture");
  const cells = childrenNamed(child(host, "topology", "cells"), "cell");
  return {
    hostUuid: textAt(host, "uuid")?.toLowerCase() ?? null,
    architecture,
    cpuModel: textAt(host, "cpu", "model") ?? null,
    topology: countTopology(cells),
    numaCells: cells.map(parseCell),
    guests: childrenNamed(root, "guest").flatMap(parseGuest),
  };
}

/**
 * Counts sockets, cores and threads from the CPUs of all cells: the element that says `topology` counts those of one
 * cell only. Null where a CPU does not tell its place.
 */
function countTopology(cells: readonly XmlElement[]): CpuTopology | null {
  const cpus = cells.flatMap((cell) => childrenNamed(child(cell, "cpus"), "cpu"));
  const sockets = new Set<string>();
  const cores = new Set<string>();
  for (const cpu of cpus) {
    const socket = attribute(cpu, "socket_id");
    const core = attribute(cpu, "core_id");
    if (socket === undefined || core === undefined) return null;
    sockets.add(socket);
    const inSocket = [attribute(cpu, "die_id"), attribute(cpu, "cluster_id"), core];
    cores.add([socket, ...inSocket.map((id) => id ?? "")].join("/"));
  }
  if (cpus.length === 0) return null;
  return {
    sockets: sockets.size,
    coresPerSocket: Math.ceil(cores.size / sockets.size),
    threadsPerCore: Math.ceil(cpus.length / cores.size),
  };
}

function parseCell(cell: XmlElement): NumaCell {
  const memory = child(cell, "memory");
  return {
    id: wholeNumber(attribute(cell, "id"), DOCUMENT, "a NUMA cell's id"),
    // A cell of CPUs alone has no memory.
    memoryMib: memory === undefined ? 0 : Math.floor(sizeBytes(memory, "KiB", DOCUMENT) / 2 ** 20),
    cpus: childrenNamed(child(cell, "cpus"), "cpu").map((cpu) =>
      wholeNumber(attribute(cpu, "id"), DOCUMENT, "a CPU's id"),
    ),
  };
}

function parseGuest(guest: XmlElement): readonly GuestSupport[] {
  const arch = child(guest, "arch");
  const osType = textAt(guest, "os_type");
  const architecture = attribute(arch, "name");
  if (osType === undefined || architecture === undefined) return [];
  const domainTypes = childrenNamed(arch, "domain").flatMap((domain) => attribute(domain, "type") ?? []);
  return [{ osType, architecture, domainTypes }];
}

import type { NumaCell } from "../hypervisor.ts";
import { unreadable } from "./errors.ts";

/** What we take from `xl info -n`. */
export interface XenInfo {
  readonly hostname: string;
  readonly architecture: string;
  /** Of Xen, such as `4.17.7`. */
  readonly version: string;
  readonly memoryMib: number;
  readonly memoryFreeMib: number;
  readonly cpuCount: number;
  readonly sockets: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
  /** Words such as `pv` and `hvm`; empty where this Xen does not tell them. */
  readonly virtualization: ReadonlySet<string>;
  /** Guest interfaces, such as `xen-3.0-x86_64`. */
  readonly guestInterfaces: ReadonlySet<string>;
  readonly numaCells: readonly NumaCell[];
}

const PROGRAM = "xl info -n";
const FACT = /^([a-z_]+)\s*:\s?(.*)$/;
/** A CPU of the topology: its number, core, socket and node. */
const CPU = /^\s*(\d+):\s+(\d+)\s+(\d+)\s+(\d+)$/;
/** A NUMA node: its number, memory and free memory in MiB, and the distances to all nodes. */
const NODE = /^\s*(\d+):\s+(\d+)\s+(\d+)\s+\d+(?:,\d+)*$/;

/** Reads what `xl info -n` prints. Throws HypervisorError (`failed`) where it lacks what xl always tells. */
export function parseInfo(text: string): XenInfo {
  const lines = text.split("\n");
  const facts = readFacts(lines);
  const cpuCount = number(facts, "nr_cpus");
  const coresPerSocket = Math.max(1, number(facts, "cores_per_socket"));
  const threadsPerCore = Math.max(1, number(facts, "threads_per_core"));
  const memoryMib = number(facts, "total_memory");
  const cpus = rowsOf(lines, "cpu_topology", CPU).map(readCpu);
  const sockets = new Set(cpus.map(({ socket }) => socket)).size;
  return {
    hostname: word(facts, "host"),
    architecture: word(facts, "machine"),
    version: word(facts, "xen_version"),
    memoryMib,
    memoryFreeMib: number(facts, "free_memory"),
    cpuCount,
    sockets: sockets === 0 ? Math.max(1, Math.round(cpuCount / (coresPerSocket * threadsPerCore))) : sockets,
    coresPerSocket,
    threadsPerCore,
    virtualization: words(facts.get("virt_caps")),
    guestInterfaces: words(facts.get("xen_caps")),
    numaCells: rowsOf(lines, "numa_info", NODE).map((row) => readNode(row, cpus, memoryMib)),
  };
}

function readFacts(lines: readonly string[]): ReadonlyMap<string, string> {
  const facts = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = FACT.exec(line) ?? [];
    if (name !== undefined && value !== undefined && !facts.has(name)) facts.set(name, value.trim());
  }
  return facts;
}

/** The rows of a table, which stand under its title and its headings; none where xl tells no such table. */
function rowsOf(lines: readonly string[], title: string, row: RegExp): readonly RegExpExecArray[] {
  const rows: RegExpExecArray[] = [];
  const start = lines.findIndex((line) => line.startsWith(title));
  for (const line of start === -1 ? [] : lines.slice(start + 2)) {
    const found = row.exec(line);
    if (found === null) break;
    rows.push(found);
  }
  return rows;
}

interface TopologyCpu {
  readonly id: number;
  readonly socket: number;
  readonly node: number;
}

function readCpu([, id, , socket, node]: RegExpExecArray): TopologyCpu {
  return { id: whole(id, "a CPU"), socket: whole(socket, "a socket"), node: whole(node, "a node") };
}

/** The memory that xl tells of a node counts the holes in its addresses too: never more than the host has. */
function readNode(
  [, digits, memory]: RegExpExecArray,
  cpus: readonly TopologyCpu[],
  hostMemoryMib: number,
): NumaCell {
  const id = whole(digits, "a node");
  return {
    id,
    memoryMib: Math.min(whole(memory, "a node's memory"), hostMemoryMib),
    cpus: cpus.filter(({ node }) => node === id).map((cpu) => cpu.id),
  };
}

function word(facts: ReadonlyMap<string, string>, name: string): string {
  const value = facts.get(name);
  if (value === undefined || value === "") throw unreadable(PROGRAM, `it does not tell '${name}'`);
  return value;
}

function number(facts: ReadonlyMap<string, string>, name: string): number {
  return whole(word(facts, name), `'${name}'`);
}

function whole(digits: string | undefined, what: string): number {
  const value = digits !== undefined && /^\d{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw unreadable(PROGRAM, `${what} is not a number`);
  return value;
}

function words(text: string | undefined): ReadonlySet<string> {
  return new Set((text ?? "").split(/\s+/).filter((found) => found !== ""));
}

import { nodeGetFreeMemory, nodeGetInfo, nodeGetMemoryStats } from "../../libvirt-rpc/index.ts";
import type { Call } from "../hypervisor.ts";
import { isUnsupported } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";

export interface NodeMemory {
  readonly totalMib: number;
  /** What guests could take now: free memory, and what the host holds as a cache only. */
  readonly freeMib: number;
}

/** nodeGetMemoryStats for the whole machine (VIR_NODE_MEMORY_STATS_ALL_CELLS). */
const ALL_CELLS = -1;

/** Reads the host's memory; from its plainer calls where the driver has no statistics. */
export async function readMemory(calls: HostCalls, call: Call): Promise<NodeMemory> {
  const stats = await readStats(calls, call);
  const total = stats.get("total");
  const free = stats.get("free");
  if (total !== undefined && free !== undefined) {
    const reclaimable = (stats.get("buffers") ?? 0) + (stats.get("cached") ?? 0);
    return { totalMib: kibToMib(total), freeMib: kibToMib(free + reclaimable) };
  }
  const [info, { freeMem }] = await Promise.all([
    calls.read(nodeGetInfo, undefined, call),
    calls.read(nodeGetFreeMemory, undefined, call),
  ]);
  return { totalMib: kibToMib(Number(info.memory)), freeMib: Math.floor(Number(freeMem) / 2 ** 20) };
}

async function readStats(calls: HostCalls, call: Call): Promise<ReadonlyMap<string, number>> {
  try {
    const count = await calls.read(nodeGetMemoryStats, { nParams: 0, cellNum: ALL_CELLS, flags: 0 }, call);
    const args = { nParams: count.nParams, cellNum: ALL_CELLS, flags: 0 };
    const { params } = await calls.read(nodeGetMemoryStats, args, call);
    return new Map(params.map(({ field, value }) => [field, Number(value)]));
  } catch (error) {
    if (isUnsupported(error)) return new Map();
    throw error;
  }
}

function kibToMib(kib: number): number {
  return Math.floor(kib / 1024);
}

import { allocatable, type HostCapacity, type HostState } from "../hosts/host-record.ts";
import type { Capability, GuestType, HostFacts, Hypervisor } from "../hypervisors/hypervisor.ts";
import { GIB } from "../lib/units.ts";

/** Where a VM can go: pure, on a snapshot of the hosts. */

export interface PlacementRequest {
  readonly hypervisor: Hypervisor | null;
  readonly guestType: GuestType | null;
  readonly cpuCount: number;
  /** With the VM's overhead. */
  readonly memoryMib: number;
  readonly capabilities: readonly Capability[];
  readonly networks: readonly string[];
  /** Networks of the project; none without. */
  readonly managedNetworks?: readonly ManagedNetworkWish[];
  /** What its volumes will need at once, in bytes; 0 when it has none. */
  readonly volumeBytes: number;
  /** The same in a pool whose volumes are not files, and take their room whole. */
  readonly wholeBytes: number;
  /** Whether some of its volumes must be files: a kernel is. */
  readonly needsFiles: boolean;
  readonly pool: string | null;
  readonly hostId: string | null;
}

/** A network of the project that a host is to have. */
export interface ManagedNetworkWish {
  readonly name: string;
  /** The bridge that it is on; null: the host makes one. */
  readonly bridge: string | null;
  /** The only hosts that may have it; null: all may. */
  readonly hostIds: readonly string[] | null;
}

export interface PlacementHost {
  readonly id: string;
  readonly name: string;
  readonly state: HostState;
  readonly schedulable: boolean;
  readonly hypervisor: Hypervisor;
  readonly guestTypes: HostFacts["guestTypes"];
  readonly capacity: HostCapacity | null;
  readonly reservedCpuCount: number;
  readonly reservedMemoryMib: number;
  /** Names of the active networks. */
  readonly networks: readonly string[];
  readonly pools: readonly PlacementPool[];
}

export interface PlacementPool {
  readonly name: string;
  readonly active: boolean;
  readonly type: string;
  readonly availableBytes: number;
}

export interface Placed {
  readonly hostId: string;
  readonly hostName: string;
  readonly hypervisor: Hypervisor;
  readonly guestType: GuestType;
  readonly pool: string;
  /** As the host calls it, such as `dir`. */
  readonly poolType: string;
}

export type RefusalReason =
  | "notRequested"
  | "unreachable"
  | "cordoned"
  | "otherHypervisor"
  | "otherGuestType"
  | "capabilityMissing"
  | "networkMissing"
  | "poolMissing"
  | "notEnoughStorage"
  | "notEnoughCpu"
  | "notEnoughMemory";

export interface Refusal {
  readonly host: string;
  readonly reason: RefusalReason;
  readonly message: string;
}

/** What a VM costs its host beside the guest's memory: the emulator itself and its page tables. */
export function memoryWithOverhead(memoryMib: number): number {
  return memoryMib + 64 + Math.ceil(memoryMib / 64);
}

/** Whether the VM fits on this host, and with which guest type and pool; or the first reason why not. */
export function fit(request: PlacementRequest, host: PlacementHost): Placed | Refusal {
  const no = (reason: RefusalReason, message: string): Refusal => ({ host: host.name, reason, message });
  if (request.hostId !== null && request.hostId !== host.id)
    return no("notRequested", "another host was asked for");
  if (host.state !== "ready") return no("unreachable", `the host is ${host.state}`);
  if (!host.schedulable) return no("cordoned", "the host is cordoned");
  if (request.hypervisor !== null && request.hypervisor !== host.hypervisor)
    return no("otherHypervisor", `it is a ${host.hypervisor} host, ${request.hypervisor} was asked for`);
  const guestType = chooseGuestType(request, host);
  if (typeof guestType !== "string") return no(guestType.reason, guestType.message);
  const missing = networkRefusal(request, host, guestType);
  if (missing !== null) return no("networkMissing", missing);
  const pool = choosePool(request, host);
  if ("reason" in pool) return no(pool.reason, pool.message);
  const short = shortage(request, host);
  if (short !== null) return no(short.reason, short.message);
  const chosen = { pool: pool.name, poolType: pool.type };
  return { hostId: host.id, hostName: host.name, hypervisor: host.hypervisor, guestType, ...chosen };
}

/**
 * Why a guest of this type cannot have these networks on the host; null: it can. Where the host makes no networks, a
 * bridge must be there by its name.
 */
export function networkRefusal(
  { networks, managedNetworks = [] }: Pick<PlacementRequest, "networks" | "managedNetworks">,
  host: PlacementHost,
  guestType: GuestType,
): string | null {
  const unknown = networks.find((name) => !host.networks.includes(name));
  if (unknown !== undefined) return `it has no active network "${unknown}"`;
  const offered = host.guestTypes.find((candidate) => candidate.guestType === guestType);
  const makesNetworks = offered?.capabilities.includes("networks") ?? false;
  for (const { name, bridge, hostIds } of managedNetworks) {
    if (hostIds !== null && !hostIds.includes(host.id)) return `the network "${name}" is not for this host`;
    if (makesNetworks) continue;
    if (bridge === null) return `it cannot make the network "${name}"`;
    if (!host.networks.includes(bridge)) return `it has no bridge "${bridge}" for the network "${name}"`;
  }
  return null;
}

type Why = Pick<Refusal, "reason" | "message">;

function chooseGuestType(request: PlacementRequest, host: PlacementHost): GuestType | Why {
  const offered = host.guestTypes.filter(
    ({ guestType }) => request.guestType === null || guestType === request.guestType,
  );
  if (offered.length === 0)
    return { reason: "otherGuestType", message: `it offers no guest type ${request.guestType ?? "at all"}` };
  const able = offered.find(({ capabilities }) =>
    request.capabilities.every((wish) => capabilities.includes(wish)),
  );
  if (able !== undefined) return able.guestType;
  const lacking = request.capabilities.filter((wish) => !offered[0]?.capabilities.includes(wish));
  return { reason: "capabilityMissing", message: `it cannot do ${lacking.join(", ")}` };
}

/** The pool asked for; without: `default` where it has the room, else the pool with the most room. */
function choosePool(request: PlacementRequest, host: PlacementHost): PlacementPool | Why {
  const usable = host.pools
    .filter((pool) => pool.active && isUsable(pool, request, host))
    .filter((pool) => request.pool === null || pool.name === request.pool)
    .toSorted(byPreference);
  const [first] = usable;
  if (first === undefined) {
    const which =
      request.pool === null ? "no active pool of type dir" : `no active pool "${request.pool}" of type dir`;
    return { reason: "poolMissing", message: `it has ${which}` };
  }
  const neededIn = ({ type }: PlacementPool) => (type === "dir" ? request.volumeBytes : request.wholeBytes);
  const roomy = usable.find((pool) => pool.availableBytes >= neededIn(pool));
  if (roomy !== undefined) return roomy;
  const gib = (bytes: number) => (bytes / GIB).toFixed(1);
  const message = `pool "${first.name}" has ${gib(first.availableBytes)} GiB free, ${gib(neededIn(first))} GiB are needed`;
  return { reason: "notEnoughStorage", message };
}

/**
 * A directory is. A volume group is where it was asked for by its name, for it may be there for something else; where
 * no volume must be a file; and on Xen, for with libvirt the console's log lies in the pool.
 */
function isUsable({ name, type }: PlacementPool, request: PlacementRequest, host: PlacementHost): boolean {
  if (type === "dir") return true;
  return type === "logical" && request.pool === name && host.hypervisor === "xen" && !request.needsFiles;
}

function byPreference(a: PlacementPool, b: PlacementPool): number {
  return (
    Number(b.name === "default") - Number(a.name === "default") ||
    b.availableBytes - a.availableBytes ||
    (a.name < b.name ? -1 : 1)
  );
}

/** What a VM takes of its host: memory with overhead. */
export interface Size {
  readonly cpuCount: number;
  readonly memoryMib: number;
}

/**
 * Why the host has no room for so much, or null. `given` is what is given back first: what a VM that is to grow has
 * already; what does not grow is not asked about, for a host may have been filled beyond what it allows now.
 */
export function shortage(
  needed: Size,
  host: Pick<PlacementHost, "capacity" | "hypervisor" | "reservedCpuCount" | "reservedMemoryMib">,
  given: Size = { cpuCount: 0, memoryMib: 0 },
): Why | null {
  const { capacity } = host;
  if (capacity === null) return { reason: "unreachable", message: "its capacity is not known yet" };
  const total = allocatable(capacity, host.hypervisor);
  const cpus = total.cpuCount - host.reservedCpuCount + given.cpuCount;
  const memory = total.memoryMib - host.reservedMemoryMib + given.memoryMib;
  const no = (reason: RefusalReason, message: string): Why => ({ reason, message });
  if (needed.cpuCount > given.cpuCount) {
    if (needed.cpuCount > capacity.cpuCount)
      return no("notEnoughCpu", `it has ${capacity.cpuCount} CPUs, fewer than the VM's ${needed.cpuCount}`);
    if (needed.cpuCount > cpus)
      return no(
        "notEnoughCpu",
        `${Math.max(0, cpus)} of ${total.cpuCount} CPUs are left, ${needed.cpuCount} are needed`,
      );
  }
  if (needed.memoryMib > given.memoryMib && needed.memoryMib > memory)
    return no(
      "notEnoughMemory",
      `${Math.max(0, memory)} of ${total.memoryMib} MiB are left, ${needed.memoryMib} MiB are needed with overhead`,
    );
  return null;
}

/** True for a host that takes the VM. */
export function isPlaced(result: Placed | Refusal): result is Placed {
  return "hostId" in result;
}

/**
 * The hosts that fit, best first: the largest share of memory left after the VM, then of CPUs, then the name, so that
 * the same snapshot always gives the same order.
 */
export function rank(request: PlacementRequest, hosts: readonly PlacementHost[]): Placed[] {
  const fitting = hosts.flatMap((host) => {
    const placed = fit(request, host);
    return isPlaced(placed) ? [{ placed, score: freeShare(request, host) }] : [];
  });
  fitting.sort(
    (a, b) =>
      b.score.memory - a.score.memory ||
      b.score.cpu - a.score.cpu ||
      (a.placed.hostName < b.placed.hostName ? -1 : 1),
  );
  return fitting.map(({ placed }) => placed);
}

function freeShare(request: PlacementRequest, host: PlacementHost): { memory: number; cpu: number } {
  if (host.capacity === null) return { memory: 0, cpu: 0 };
  const total = allocatable(host.capacity, host.hypervisor);
  return {
    memory: (total.memoryMib - host.reservedMemoryMib - request.memoryMib) / Math.max(1, total.memoryMib),
    cpu: (total.cpuCount - host.reservedCpuCount - request.cpuCount) / Math.max(1, total.cpuCount),
  };
}

/**
 * Why no host takes the VM, for the client: how many hosts fell at which filter, and each one's own reason; hosts that
 * were not asked for come last.
 */
export function explain(
  request: PlacementRequest,
  hosts: readonly PlacementHost[],
): { counts: Record<string, number>; refusals: Refusal[] } {
  const refusals = hosts
    .map((host) => fit(request, host))
    .filter((result): result is Refusal => !isPlaced(result))
    .toSorted((a, b) => Number(a.reason === "notRequested") - Number(b.reason === "notRequested"));
  const counts: Record<string, number> = {};
  for (const { reason } of refusals) counts[reason] = (counts[reason] ?? 0) + 1;
  return { counts, refusals };
}

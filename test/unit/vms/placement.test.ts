import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { allocatable } from "../../../src/hosts/host-record.ts";
import {
  explain,
  fit,
  isPlaced,
  memoryWithOverhead,
  type PlacementHost,
  type PlacementRequest,
  rank,
  shortage,
} from "../../../src/vms/placement.ts";

const GIB = 2 ** 30;

const capacity = {
  cpuCount: 8,
  memoryMib: 8192,
  reserveCpuCount: 0,
  reserveMemoryMib: 512,
  cpuOvercommit: 2,
  memoryOvercommit: 1,
  unmanagedCpuCount: 0,
  unmanagedMemoryMib: 0,
};

function host(overrides: Partial<PlacementHost> = {}): PlacementHost {
  const { name = "h1" } = overrides;
  return {
    id: `id-${name}`,
    name,
    state: "ready",
    schedulable: true,
    hypervisor: "kvm",
    guestTypes: [{ guestType: "hvm", capabilities: ["start", "volumes", "firmwareBios"] }],
    capacity,
    reservedCpuCount: 0,
    reservedMemoryMib: 0,
    networks: ["default"],
    pools: [{ name: "default", active: true, type: "dir", availableBytes: 100 * GIB }],
    ...overrides,
  };
}

function request(overrides: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    hypervisor: null,
    guestType: null,
    cpuCount: 2,
    memoryMib: 1024,
    capabilities: ["start", "firmwareBios"],
    networks: [],
    volumeBytes: 0,
    wholeBytes: 0,
    needsFiles: false,
    pool: null,
    hostId: null,
    ...overrides,
  };
}

describe("what may be promised of a host", () => {
  test("is the total less the reserve, times the overcommit, less what others use", () => {
    const given = { ...capacity, unmanagedCpuCount: 3, unmanagedMemoryMib: 1000 };
    expect(allocatable(given, "kvm")).toEqual({ cpuCount: 13, memoryMib: 8192 - 512 - 1000 });
  });

  test("never overcommits Xen's memory, and is never below zero", () => {
    expect(allocatable({ ...capacity, memoryOvercommit: 4 }, "xen").memoryMib).toBe(7680);
    expect(allocatable({ ...capacity, memoryOvercommit: 4 }, "kvm").memoryMib).toBe(4 * 7680);
    const crowded = { ...capacity, unmanagedMemoryMib: 99_999, reserveCpuCount: 99 };
    expect(allocatable(crowded, "kvm")).toEqual({ cpuCount: 0, memoryMib: 0 });
  });

  test("loses nothing to floating point", () => {
    expect(allocatable({ ...capacity, cpuCount: 100, cpuOvercommit: 1.15 }, "kvm").cpuCount).toBe(115);
  });
});

describe("whether a VM fits on a host", () => {
  test.each([
    ["unreachable", { state: "unreachable" }, {}],
    ["unreachable", { capacity: null }, {}],
    ["cordoned", { schedulable: false }, {}],
    ["notRequested", {}, { hostId: "another" }],
    ["otherHypervisor", {}, { hypervisor: "xen" }],
    ["otherGuestType", {}, { guestType: "pv" }],
    ["otherGuestType", { guestTypes: [] }, {}],
    ["capabilityMissing", {}, { capabilities: ["directKernel"] }],
    ["networkMissing", {}, { networks: ["default", "dmz"] }],
    ["poolMissing", {}, { pool: "fast" }],
    ["poolMissing", { pools: [{ name: "default", active: false, type: "dir", availableBytes: GIB }] }, {}],
    ["poolMissing", { pools: [{ name: "default", active: true, type: "logical", availableBytes: GIB }] }, {}],
    ["notEnoughStorage", {}, { volumeBytes: 101 * GIB }],
    ["notEnoughCpu", { reservedCpuCount: 15 }, {}],
    ["notEnoughMemory", { reservedMemoryMib: 7680 - 1023 }, {}],
  ] as const)("says %s", (reason, of, asked) => {
    const result = fit(request(asked), host(of));
    expect(result).toMatchObject({ host: "h1", reason });
  });

  test("takes the last MiB and the last CPU, and not one more", () => {
    const full = host({ reservedMemoryMib: 7680 - 1024, reservedCpuCount: 14 });
    expect(isPlaced(fit(request(), full))).toBe(true);
    expect(isPlaced(fit(request({ memoryMib: 1025 }), full))).toBe(false);
    expect(isPlaced(fit(request({ cpuCount: 3 }), full))).toBe(false);
  });

  test("gives no VM more CPUs than the host has, whatever the overcommit", () => {
    expect(fit(request({ cpuCount: 9 }), host())).toMatchObject({ reason: "notEnoughCpu" });
  });

  test("takes the default pool, but another one rather than none", () => {
    const pools = [
      { name: "wide", active: true, type: "dir", availableBytes: 500 * GIB },
      { name: "default", active: true, type: "dir", availableBytes: 10 * GIB },
    ];
    expect(fit(request({ volumeBytes: 5 * GIB }), host({ pools }))).toMatchObject({ pool: "default" });
    expect(fit(request({ volumeBytes: 50 * GIB }), host({ pools }))).toMatchObject({ pool: "wide" });
  });

  test("takes a volume group of a Xen host, where it is asked for and nothing must be a file", () => {
    const pools = [
      { name: "vg0", active: true, type: "logical", availableBytes: 500 * GIB },
      { name: "default", active: true, type: "dir", availableBytes: 10 * GIB },
    ];
    const xen = host({ hypervisor: "xen", pools });
    const asked = { pool: "vg0", volumeBytes: 0, wholeBytes: 500 * GIB };
    expect(fit(request(asked), xen)).toMatchObject({ pool: "vg0", poolType: "logical" });
    expect(fit(request({ ...asked, pool: null }), xen)).toMatchObject({ pool: "default", poolType: "dir" });
    expect(fit(request({ volumeBytes: 50 * GIB }), xen)).toMatchObject({ reason: "notEnoughStorage" });
    expect(fit(request({ ...asked, needsFiles: true }), xen)).toMatchObject({ reason: "poolMissing" });
    expect(fit(request({ ...asked, wholeBytes: 501 * GIB }), xen)).toMatchObject({
      reason: "notEnoughStorage",
    });
    expect(fit(request(asked), host({ pools }))).toMatchObject({ reason: "poolMissing" });
  });

  test("chooses the first guest type that can do what is asked", () => {
    const guestTypes = [
      { guestType: "pv", capabilities: ["start", "directKernel"] },
      { guestType: "hvm", capabilities: ["start", "directKernel", "firmwareBios"] },
    ] as const;
    expect(fit(request(), host({ guestTypes }))).toMatchObject({ guestType: "hvm" });
    expect(fit(request({ capabilities: ["directKernel"] }), host({ guestTypes }))).toMatchObject({
      guestType: "pv",
    });
  });
});

describe("whether a VM may grow", () => {
  const full = host({ reservedMemoryMib: 7680, reservedCpuCount: 16 });
  const has = { cpuCount: 2, memoryMib: 1024 };

  test("gives its own part back first", () => {
    expect(shortage(has, full, has)).toBeNull();
    expect(shortage({ ...has, memoryMib: 1025 }, full, has)).toMatchObject({ reason: "notEnoughMemory" });
    expect(shortage({ ...has, cpuCount: 3 }, full, has)).toMatchObject({ reason: "notEnoughCpu" });
  });

  test("asks nothing about what does not grow, on a host that is overfull", () => {
    const overfull = host({ reservedMemoryMib: 9000 });
    expect(shortage({ cpuCount: 3, memoryMib: 512 }, overfull, has)).toBeNull();
  });
});

const hostArbitrary = fc
  .record({
    name: fc.stringMatching(/^[a-z]{1,6}$/),
    state: fc.constantFrom("ready", "ready", "ready", "unreachable", "connecting"),
    schedulable: fc.boolean(),
    hypervisor: fc.constantFrom("kvm", "xen"),
    cpuCount: fc.integer({ min: 1, max: 64 }),
    memoryMib: fc.integer({ min: 512, max: 65_536 }),
    cpuOvercommit: fc.double({ min: 0.1, max: 8, noNaN: true }),
    memoryOvercommit: fc.double({ min: 0.1, max: 4, noNaN: true }),
    unmanagedMemoryMib: fc.integer({ min: 0, max: 4096 }),
  })
  .map(({ name, state, schedulable, hypervisor, ...more }) =>
    host({
      name,
      state,
      schedulable,
      hypervisor,
      capacity: { ...capacity, ...more },
    }),
  );
const hostsArbitrary = fc.uniqueArray(hostArbitrary, { selector: ({ name }) => name, maxLength: 8 });
const requestArbitrary = fc
  .record({
    cpuCount: fc.integer({ min: 1, max: 16 }),
    memoryMib: fc.integer({ min: 16, max: 16_384 }),
    hypervisor: fc.constantFrom(null, "kvm", "xen"),
  })
  .map((asked) => request(asked as Partial<PlacementRequest>));

describe("placing on many hosts", () => {
  test("never promises more than is allocatable, and refuses no VM that a host has room for", () => {
    fc.assert(
      fc.property(hostsArbitrary, fc.array(requestArbitrary, { maxLength: 40 }), (start, requests) => {
        let hosts = start;
        for (const asked of requests) {
          const [best] = rank(asked, hosts);
          const roomy = hosts.some((candidate) => isPlaced(fit(asked, candidate)));
          expect(best !== undefined).toBe(roomy);
          if (best === undefined) continue;
          hosts = hosts.map((candidate) =>
            candidate.id === best.hostId
              ? {
                  ...candidate,
                  reservedCpuCount: candidate.reservedCpuCount + asked.cpuCount,
                  reservedMemoryMib: candidate.reservedMemoryMib + asked.memoryMib,
                }
              : candidate,
          );
        }
        for (const filled of hosts) {
          if (filled.capacity === null) continue;
          const total = allocatable(filled.capacity, filled.hypervisor);
          expect(filled.reservedMemoryMib).toBeLessThanOrEqual(total.memoryMib);
          expect(filled.reservedCpuCount).toBeLessThanOrEqual(total.cpuCount);
          if (filled.hypervisor === "xen")
            expect(filled.reservedMemoryMib).toBeLessThanOrEqual(filled.capacity.memoryMib);
        }
      }),
    );
  });

  test("gives the same order for the same hosts, however they come", () => {
    fc.assert(
      fc.property(hostsArbitrary, requestArbitrary, (hosts, asked) => {
        expect(rank(asked, hosts.toReversed())).toEqual(rank(asked, hosts));
      }),
    );
  });

  test("either places or names every host with its reason", () => {
    fc.assert(
      fc.property(hostsArbitrary, requestArbitrary, (hosts, asked) => {
        if (rank(asked, hosts).length > 0) return;
        const { counts, refusals } = explain(asked, hosts);
        expect(refusals.map((refusal) => refusal.host).toSorted()).toEqual(
          hosts.map(({ name }) => name).toSorted(),
        );
        expect(Object.values(counts).reduce((sum, count) => sum + count, 0)).toBe(hosts.length);
      }),
    );
  });

  test("prefers the host with the larger share of memory left", () => {
    const hosts = [host({ name: "a", reservedMemoryMib: 4000 }), host({ name: "b" })];
    expect(rank(request(), hosts).map(({ hostName }) => hostName)).toEqual(["b", "a"]);
  });

  test("tells first of the host that was asked for", () => {
    const hosts = ["a", "b", "c"].map((name) => host({ name }));
    const asked = request({ hostId: "id-c", memoryMib: 99_999 });
    expect(explain(asked, hosts).refusals[0]).toMatchObject({ host: "c", reason: "notEnoughMemory" });
  });
});

test("a VM costs more than its memory, and more the larger it is", () => {
  expect(memoryWithOverhead(1024)).toBe(1024 + 64 + 16);
  fc.assert(
    fc.property(fc.integer({ min: 16, max: 2 ** 26 }), (memoryMib) => {
      expect(memoryWithOverhead(memoryMib + 1)).toBeGreaterThan(memoryWithOverhead(memoryMib));
    }),
  );
});

import { describe, expect, test } from "vitest";
import { type HostId, newId, type ProjectId, type VmId } from "../../../src/lib/ids.ts";
import type { VmRecord, VmSurroundings } from "../../../src/vms/vm-record.ts";
import { viewOf } from "../../../src/vms/vm-view.ts";

const T1 = new Date("2026-01-01T00:00:00.000Z");
const T2 = new Date("2026-01-02T00:00:00.000Z");

function vm(overrides: Partial<VmRecord> = {}): VmRecord {
  const id = newId<VmId>();
  return {
    id,
    projectId: newId<ProjectId>(),
    projectName: "default",
    name: "web",
    labels: {},
    spec: {
      runPolicy: "running",
      cpu: { count: 1 },
      memoryMib: 256,
      boot: { firmware: "bios" },
      disks: [],
      nics: [],
    },
    generation: 2,
    phase: "ready",
    power: "running",
    powerReason: null,
    hostId: newId<HostId>(),
    hostName: "n1",
    domainUuid: id,
    domainName: "web-1",
    hypervisor: "kvm",
    guestType: "hvm",
    pool: "default",
    observedAt: T1,
    observedGeneration: 2,
    addresses: [],
    agentState: null,
    conditions: [],
    createdAt: T1,
    updatedAt: T1,
    ...overrides,
  };
}

const ready = { ready: true, inventoryAt: T2, error: null, since: T2 };

function conditionsOf(record: VmRecord, host: VmSurroundings["host"] = ready): string[] {
  const { status } = viewOf(record, {
    images: [],
    nics: [],
    operations: [],
    agent: null,
    host,
    diskPools: [],
  });
  return status.conditions.map(({ type, reason }) => `${type} ${reason}`);
}

describe("the conditions of a VM", () => {
  test("are none for one that is as it should be", () => {
    expect(conditionsOf(vm())).toEqual([]);
  });

  test("say that it must be restarted while it is on with an older spec", () => {
    const changed = { generation: 3 };
    expect(conditionsOf(vm(changed))).toEqual(["RestartRequired SpecChanged"]);
    expect(conditionsOf(vm({ ...changed, power: "paused" }))).toEqual(["RestartRequired SpecChanged"]);
    expect(conditionsOf(vm({ ...changed, power: "off" }))).toEqual([]);
    expect(conditionsOf(vm({ ...changed, observedGeneration: null }))).toEqual([]);
  });

  test("say that its host is silent, and why", () => {
    const silent = { ready: false, inventoryAt: T1, error: "connection refused", since: T1 };
    const { status } = viewOf(vm({ power: "unknown" }), {
      images: [],
      nics: [],
      operations: [],
      agent: null,
      host: silent,
      diskPools: [],
    });
    expect(status.conditions).toMatchObject([{ type: "HostUnreachable", since: T1.toISOString() }]);
    expect(status.conditions[0]?.message).toContain("connection refused");
  });

  test("say that the host could not write to a disk, whether room is lacking, and what to do", () => {
    const paused = vm({ power: "paused", powerReason: "ioerror" });
    const told = (availableBytes: number) => {
      const diskPools = [{ pool: "default", availableBytes }];
      return viewOf(paused, { images: [], nics: [], agent: null, operations: [], host: ready, diskPools })
        .status.conditions;
    };
    expect(told(0)).toMatchObject([{ type: "DiskError", reason: "NoSpace", since: T1.toISOString() }]);
    expect(told(0)[0]?.message).toContain('pool "default" had 0.00 GiB free');
    expect(told(0)[0]?.message).toContain("resume the VM");
    expect(told(2 ** 30)).toMatchObject([{ type: "DiskError", reason: "IoError" }]);
    expect(told(2 ** 30)[0]?.message).toContain('pool "default" had 1.00 GiB free');
    expect(conditionsOf(vm({ power: "paused", powerReason: "user" }))).toEqual([]);
    expect(conditionsOf(vm({ power: "running", powerReason: "ioerror" }))).toEqual([]);
  });

  test("say that it crashed", () => {
    expect(conditionsOf(vm({ power: "crashed", powerReason: "panicked" }))).toEqual(["Crashed panicked"]);
  });

  test("keep what is stored beside what follows", () => {
    const stored = {
      type: "OperationFailed",
      reason: "busy",
      message: "m",
      since: T1.toISOString(),
    } as const;
    expect(conditionsOf(vm({ power: "crashed", conditions: [stored] }))).toEqual([
      "OperationFailed busy",
      "Crashed crashed",
    ]);
  });
});

describe("when a VM was last seen", () => {
  const seenAt = (record: VmRecord, host: VmSurroundings["host"]) =>
    viewOf(record, { images: [], nics: [], operations: [], agent: null, host, diskPools: [] }).status
      .observedAt;

  test("is when a complete inventory of a live host confirmed it", () => {
    expect(seenAt(vm(), ready)).toBe(T2.toISOString());
    expect(seenAt(vm({ observedAt: T2 }), { ...ready, inventoryAt: T1 })).toBe(T2.toISOString());
  });

  test("is its own time while the host is silent, and never before it was seen at all", () => {
    expect(seenAt(vm(), { ...ready, ready: false })).toBe(T1.toISOString());
    expect(seenAt(vm({ observedAt: null }), ready)).toBeNull();
  });
});

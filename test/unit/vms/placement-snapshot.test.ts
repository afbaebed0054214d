import { afterEach, expect, test, vi } from "vitest";
import type { Sql } from "../../../src/db/sql.ts";
import { createPlacementSnapshots } from "../../../src/vms/placement-snapshot.ts";

const ROW = { id: "h1", name: "one", hypervisor: "kvm", reserved_cpu_count: 1, reserved_memory_mib: 100 };
const PLACED = {
  hostId: "h1",
  hostName: "one",
  hypervisor: "kvm",
  guestType: "hvm",
  pool: "p",
  poolType: "dir",
} as const;

/** Answers every query with these rows. */
function answering(rows: readonly object[]): Sql {
  return {
    $queryRaw: <T>() => Promise.resolve(rows as T),
    $executeRaw: () => Promise.resolve(0),
  };
}

afterEach(() => {
  vi.useRealTimers();
});

test("a snapshot counts what was placed since, and is forgotten after a moment", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  const snapshots = createPlacementSnapshots();
  expect(snapshots.recent()).toBeNull();
  await snapshots.read(answering([ROW]));
  snapshots.placed(PLACED, { cpuCount: 2, memoryMib: 50 });
  snapshots.placed({ ...PLACED, hostId: "unknown" }, { cpuCount: 2, memoryMib: 50 });
  expect(snapshots.recent()).toMatchObject([{ id: "h1", reservedCpuCount: 3, reservedMemoryMib: 150 }]);
  vi.advanceTimersByTime(10_000);
  expect(snapshots.recent()).toBeNull();
  await snapshots.read(answering([ROW]));
  expect(snapshots.recent()).toMatchObject([{ reservedCpuCount: 1 }]);
});

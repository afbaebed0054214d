import type { Sql } from "../db/transaction.ts";
import type { Placed, PlacementHost, Size } from "./placement.ts";
import { placementHosts } from "./placement-store.ts";

/** The hosts as placement ranks them. */
export interface PlacementSnapshots {
  /** As they were a moment ago, with what was placed through here since; null where that is not known. */
  recent(): readonly PlacementHost[] | null;
  /** As they are now. */
  read(sql: Sql): Promise<readonly PlacementHost[]>;
  /** Something was placed: its host has so much less room. */
  placed(placed: Placed, size: Size): void;
}

// Ranking all hosts anew for each of many creates would cost most of what a create costs.
const KEPT_MS = 250;

/**
 * The snapshots of one process. What is ranked may be out of date: a host is looked at again once its row is locked, and
 * all of them before a VM is refused.
 */
export function createPlacementSnapshots(keptMs: number = KEPT_MS): PlacementSnapshots {
  let kept: { readonly hosts: PlacementHost[]; readonly until: number } | null = null;
  return {
    recent: () => (kept !== null && performance.now() < kept.until ? kept.hosts : null),
    async read(sql) {
      const hosts = await placementHosts(sql);
      kept = { hosts, until: performance.now() + keptMs };
      return hosts;
    },
    placed({ hostId }, { cpuCount, memoryMib }) {
      const index = kept?.hosts.findIndex(({ id }) => id === hostId) ?? -1;
      const host = kept?.hosts[index];
      if (host === undefined) return;
      kept?.hosts.splice(index, 1, {
        ...host,
        reservedCpuCount: host.reservedCpuCount + cpuCount,
        reservedMemoryMib: host.reservedMemoryMib + memoryMib,
      });
    },
  };
}

import type { Tx } from "../db/transaction.ts";
import type {
  AgentReport,
  HostInventory,
  ObservedDomain,
  ObservedVolume,
} from "../hypervisors/hypervisor.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";

/** What the layer of VMs makes of what was seen of a host; called in the transaction that records it. */
export interface ObservationSink {
  /**
   * `observedAt` is when it was asked for. `proven` are the UUIDs of domains that were not seen before either, for long
   * enough to be gone now if this does not show them. Returns those that should be there, are not shown and are not
   * proven to be gone: another inventory is wanted soon.
   */
  inventory(
    tx: Tx,
    hostId: HostId,
    inventory: HostInventory,
    observedAt: Date,
    proven: readonly string[],
  ): Promise<readonly string[]>;
  /**
   * Domains that were looked at between two inventories, and the UUIDs of which the host said that it has none. Returns
   * those of them that should be there: a complete inventory is wanted soon, for only that can say that one is missing.
   */
  domains(
    tx: Tx,
    hostId: HostId,
    looked: { readonly seen: readonly ObservedDomain[]; readonly gone: readonly string[] },
    observedAt: Date,
  ): Promise<readonly string[]>;
  /** What agents in guests told, or why they told nothing. */
  agents(tx: Tx, hostId: HostId, words: readonly AgentWord[]): Promise<void>;
  /** What is looked for in the host's pools at a slow pace: volumes whose names begin so. */
  volumePrefix(installationId: InstallationId): string;
  /** The volumes that were found in these pools, which were read whole. */
  volumes(
    tx: Tx,
    hostId: HostId,
    installationId: InstallationId,
    looked: { readonly pools: readonly string[]; readonly seen: readonly ObservedVolume[] },
    observedAt: Date,
  ): Promise<void>;
  /** The host has fallen silent. */
  unreachable(tx: Tx, hostId: HostId): Promise<void>;
}

/** What came of asking the agent in one guest. */
export type AgentWord = { readonly uuid: string; readonly askedAt: Date } & (
  | { readonly report: AgentReport; readonly error: null }
  | { readonly report: null; readonly error: string }
);

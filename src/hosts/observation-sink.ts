import type { Tx } from "../db/transaction.ts";
import type { HostInventory, ObservedDomain } from "../hypervisors/hypervisor.ts";
import type { HostId } from "../lib/ids.ts";

/** What the layer of VMs makes of what was seen of a host; called in the transaction that records it. */
export interface ObservationSink {
  /** `observedAt` is when it was asked for. */
  inventory(tx: Tx, hostId: HostId, inventory: HostInventory, observedAt: Date): Promise<void>;
  /**
   * Domains that were looked at between two inventories, and the UUIDs of which the host said that it has none. True
   * when a complete inventory is wanted soon, for only that can say that a domain is missing.
   */
  domains(
    tx: Tx,
    hostId: HostId,
    looked: { readonly seen: readonly ObservedDomain[]; readonly gone: readonly string[] },
    observedAt: Date,
  ): Promise<boolean>;
  /** The host has fallen silent. */
  unreachable(tx: Tx, hostId: HostId): Promise<void>;
}

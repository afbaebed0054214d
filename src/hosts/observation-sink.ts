import type { Tx } from "../db/transaction.ts";
import type { HostInventory, ObservedDomain } from "../hypervisors/hypervisor.ts";
import type { HostId } from "../lib/ids.ts";

/** What the layer of VMs makes of what was seen of a host; called in the transaction that records it. */
export interface ObservationSink {
  /** `observedAt` is when it was asked for. */
  inventory(tx: Tx, hostId: HostId, inventory: HostInventory, observedAt: Date): Promise<void>;
  /** Domains that were looked at between two inventories. One that the host said it has not is not among them. */
  domains(tx: Tx, hostId: HostId, domains: readonly ObservedDomain[], observedAt: Date): Promise<void>;
  /** The host has fallen silent. */
  unreachable(tx: Tx, hostId: HostId): Promise<void>;
}

import type { ObservationSink } from "../hosts/observation-sink.ts";
import { applyMissing, applySeen, applySilence, isAnyMissed } from "./vm-observation-store.ts";

/**
 * Brings the inventory of VMs in line with what hosts show. It takes what was seen and nothing else: it never
 * concludes from what an operation meant to do. It repairs nothing on a host.
 */
export const vmObservations: ObservationSink = {
  async inventory(tx, hostId, inventory, observedAt) {
    await applySeen(tx, hostId, inventory.domains, observedAt);
    const uuids = inventory.domains.map(({ uuid }) => uuid);
    await applyMissing(tx, hostId, uuids, observedAt);
  },
  // One look that finds nothing is no proof that a domain is gone: the next complete inventory says so.
  async domains(tx, hostId, { seen, gone }, observedAt) {
    await applySeen(tx, hostId, seen, observedAt);
    return await isAnyMissed(tx, hostId, gone);
  },
  async unreachable(tx, hostId) {
    await applySilence(tx, hostId);
  },
};

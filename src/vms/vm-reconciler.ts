import type { ObservationSink } from "../hosts/observation-sink.ts";
import { forgetOrphans, recordOrphans, recordSizes } from "../volumes/orphan-store.ts";
import { installationPrefix, ownerInName } from "../volumes/volume-names.ts";
import { applyAddresses, applyAgentWords } from "./vm-address-store.ts";
import { applyMissing, applySeen, applySilence, missedVms, shouldBeThere } from "./vm-observation-store.ts";

/**
 * Brings the inventory of VMs in line with what hosts show. It takes what was seen and nothing else: it never
 * concludes from what an operation meant to do. It repairs nothing on a host.
 */
export const vmObservations: ObservationSink = {
  async inventory(tx, hostId, inventory, observedAt, proven) {
    await applySeen(tx, hostId, inventory.domains, observedAt);
    const uuids = inventory.domains.map(({ uuid }) => uuid);
    const missed = await missedVms(tx, hostId, uuids, observedAt);
    const gone = missed.filter(({ uuid, known }) => known || proven.includes(uuid)).map(({ uuid }) => uuid);
    await applyMissing(tx, hostId, gone, observedAt);
    if (inventory.addresses !== undefined) await applyAddresses(tx, hostId, inventory.addresses, observedAt);
    return missed.map(({ uuid }) => uuid).filter((uuid) => !gone.includes(uuid));
  },
  // One look that finds nothing is no proof that a domain is gone: a later complete inventory says so.
  async domains(tx, hostId, { seen, gone }, observedAt) {
    await applySeen(tx, hostId, seen, observedAt);
    return await shouldBeThere(tx, hostId, gone);
  },
  agents: applyAgentWords,
  volumePrefix: installationPrefix,
  async volumes(tx, hostId, installationId, { pools, seen }, observedAt) {
    const ours = seen
      .filter(({ name }) => ownerInName(installationId, name) !== null)
      .map(({ pool, name, capacityBytes, allocationBytes }) => ({
        pool,
        name,
        capacityBytes,
        allocationBytes,
      }));
    await recordSizes(tx, hostId, ours, observedAt);
    await recordOrphans(tx, hostId, ours, observedAt);
    await forgetOrphans(tx, hostId, pools, ours);
  },
  async unreachable(tx, hostId) {
    await applySilence(tx, hostId);
  },
};

import type { Tx } from "../db/transaction.ts";
import { DroverError } from "../lib/errors.ts";
import {
  explain,
  fit,
  isPlaced,
  type Placed,
  type PlacementHost,
  type PlacementRequest,
  rank,
} from "./placement.ts";
import { beginTry, endTry, lockPlacementHost, placementHosts } from "./placement-store.ts";

// Enough to see the pattern; a refusal by a thousand hosts is told by the counts.
const MOST_REFUSALS = 50;
const READINGS = 5;

/**
 * Chooses a host and keeps its row locked, so that the reservation that follows in this transaction cannot overfill it.
 * Ranks on a snapshot, checks each candidate again under its lock, and reads anew before it refuses: a refusal is
 * only given when a fresh snapshot has no host that fits. Throws `no_placement` with the reason per host, and
 * `unavailable` when others were faster every time.
 */
export async function placeVm(tx: Tx, request: PlacementRequest): Promise<Placed> {
  for (let reading = 0; reading < READINGS; reading++) {
    const hosts = await placementHosts(tx);
    const candidates = rank(request, hosts);
    if (candidates.length === 0) throw refused(request, hosts);
    for (const candidate of candidates) {
      const placed = await tryHost(tx, request, candidate.hostId);
      if (placed !== null) return placed;
    }
  }
  const message = "Other VMs took the room of each host that had some, again and again. Try again.";
  throw new DroverError("unavailable", message, { retryAfterSeconds: 1 });
}

/** A host that does not fit is unlocked again before the next is tried: nobody waits for two, so nobody deadlocks. */
async function tryHost(tx: Tx, request: PlacementRequest, hostId: string): Promise<Placed | null> {
  await beginTry(tx);
  const host = await lockPlacementHost(tx, hostId);
  const placed = host === null ? null : fit(request, host);
  if (placed !== null && isPlaced(placed)) return placed;
  await endTry(tx);
  return null;
}

function refused(request: PlacementRequest, hosts: readonly PlacementHost[]): DroverError {
  const { counts, refusals } = explain(request, hosts);
  const told = refusals.slice(0, MOST_REFUSALS);
  const summary = told.slice(0, 5).map(({ host, message }) => `${host}: ${message}`);
  const more =
    refusals.length > summary.length ? ` … and ${refusals.length - summary.length} more hosts` : "";
  const message =
    hosts.length === 0
      ? "There is no host yet. Register one with POST /v1/hosts."
      : `No host can take this VM. ${summary.join("; ")}${more}.`;
  return new DroverError("no_placement", message, { details: { counts, hosts: told } });
}

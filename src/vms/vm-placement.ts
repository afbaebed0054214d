import { sentTogether } from "../db/sql.ts";
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
import type { PlacementSnapshots } from "./placement-snapshot.ts";
import { beginTry, endTry, lockFreeHost, lockPlacementHost, placementHosts } from "./placement-store.ts";

// Enough to see the pattern; a refusal by a thousand hosts is told by the counts.
const MOST_REFUSALS = 50;
const READINGS = 5;
// Hosts that are much worse than the best are not worth the haste.
const MOST_FREE_TRIED = 32;

/**
 * Chooses a host and keeps its row locked, so that the reservation that follows in this transaction cannot overfill it.
 * Ranks on a snapshot, checks each candidate again under its lock, and reads anew before it refuses: a refusal is
 * only given when a fresh snapshot has no host that fits. Throws `no_placement` with the reason per host, and
 * `unavailable` when others were faster every time.
 */
export async function placeVm(
  tx: Tx,
  request: PlacementRequest,
  snapshots: PlacementSnapshots,
): Promise<Placed> {
  let recent = snapshots.recent();
  for (let reading = 0; reading < READINGS; reading++) {
    const hosts = recent ?? (await snapshots.read(tx));
    const candidates = rank(request, hosts);
    if (candidates.length === 0 && recent === null) throw refused(request, hosts);
    const placed = await tryAll(tx, request, candidates);
    if (placed !== null) {
      snapshots.placed(placed, request);
      return placed;
    }
    recent = null;
  }
  const message = "Other VMs took the room of each host that had some, again and again. Try again.";
  throw new DroverError("unavailable", message, { retryAfterSeconds: 1 });
}

async function tryAll(
  tx: Tx,
  request: PlacementRequest,
  candidates: readonly Placed[],
): Promise<Placed | null> {
  if (candidates.length === 0) return null;
  const free = await tryFree(tx, request, candidates);
  if (free !== null) return free;
  for (const candidate of turned(candidates)) {
    const placed = await tryHost(tx, request, candidate.hostId);
    if (placed !== null) return placed;
  }
  return null;
}

/**
 * Takes the best host that nobody else is placing on: those who create at once spread over hosts that are as good, and
 * do not queue for one. Null: all of the best are taken at the moment, or the one that was free has no room by now.
 */
async function tryFree(
  tx: Tx,
  request: PlacementRequest,
  candidates: readonly Placed[],
): Promise<Placed | null> {
  const best = candidates.slice(0, MOST_FREE_TRIED).map(({ hostId }) => hostId);
  const [, free] = await sentTogether(beginTry(tx), lockFreeHost(tx, best));
  if (free === null) return null;
  const [host] = await placementHosts(tx, free);
  const placed = host === undefined ? null : fit(request, host);
  if (placed !== null && isPlaced(placed)) return placed;
  await endTry(tx);
  return null;
}

/** The best ones from a random one on, so that those who must wait do not all wait for the same host; then the others. */
function turned(candidates: readonly Placed[]): Placed[] {
  const best = candidates.slice(0, MOST_FREE_TRIED);
  const from = Math.floor(Math.random() * best.length);
  return [...best.slice(from), ...best.slice(0, from), ...candidates.slice(MOST_FREE_TRIED)];
}

/** A host that does not fit is unlocked again before the next is tried: nobody waits for two, so nobody deadlocks. */
async function tryHost(tx: Tx, request: PlacementRequest, hostId: string): Promise<Placed | null> {
  const [, host] = await sentTogether(beginTry(tx), lockPlacementHost(tx, hostId));
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

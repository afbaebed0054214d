import { GIB } from "../lib/units.ts";
import type { PoolCandidate } from "./volume-store.ts";

/** Where a volume can go: pure, on what hosts last showed of their pools. */

export interface PoolWish {
  /** Name of the only pool to consider, on whatever host. */
  readonly pool: string | null;
  /** What it takes at once; what is written later is not counted. */
  readonly neededBytes: number;
}

export interface PoolRefusal {
  readonly host: string;
  readonly pool: string;
  readonly message: string;
}

/** Types of pools whose volumes are files, which hold every format. */
const WITH_FILES: ReadonlySet<string> = new Set(["dir", "fs", "netfs"]);

/** The fitting pool with the most room; or why none fits. */
export function choosePool(
  wish: PoolWish,
  candidates: readonly PoolCandidate[],
): PoolCandidate | readonly PoolRefusal[] {
  const judged = candidates
    .filter(({ pool }) => wish.pool === null || pool === wish.pool)
    .map((candidate) => ({ candidate, why: whyNot(wish, candidate) }));
  const [best] = judged
    .filter(({ why }) => why === null)
    .map(({ candidate }) => candidate)
    .toSorted((a, b) => b.availableBytes - a.availableBytes || (a.host < b.host ? -1 : 1));
  if (best !== undefined) return best;
  return judged.map(({ candidate: { host, pool }, why }) => ({ host, pool, message: why ?? "" }));
}

function whyNot({ neededBytes }: PoolWish, candidate: PoolCandidate): string | null {
  const { hostState, schedulable, able, active, type, availableBytes } = candidate;
  if (hostState !== "ready") return `the host is ${hostState}`;
  if (!schedulable) return "the host is cordoned";
  if (!able) return "the host makes no volumes";
  if (!active) return "the pool is not active";
  if (!WITH_FILES.has(type)) return `the pool is of type ${type}: volumes of their own are files`;
  if (availableBytes >= neededBytes) return null;
  const gib = (bytes: number): string => (bytes / GIB).toFixed(1);
  return `${gib(availableBytes)} GiB are free, ${gib(neededBytes)} GiB are needed`;
}

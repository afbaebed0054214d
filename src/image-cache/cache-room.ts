import type { HostImage } from "./host-image.ts";

/** What the copies in one pool may take. */
export interface RoomLimits {
  readonly limitBytes: number;
  /** What the pool has left, as far as it is known. */
  readonly availableBytes: number;
}

type Kept = Pick<HostImage, "id" | "state" | "sizeBytes" | "uses" | "lastUsedAt">;

/**
 * Which copies go so that `neededBytes` more have room: those that no volume needs, the least recently used first, as few
 * as do. What is in use stays, whatever the limit: then there may be less room than was asked for. Pure.
 */
export function planRoom<Copy extends Kept>(
  copies: readonly Copy[],
  neededBytes: number,
  { limitBytes, availableBytes }: RoomLimits,
): Copy[] {
  const keptBytes = copies
    .filter(({ state }) => state === "ready" || state === "filling")
    .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let missingBytes = Math.max(keptBytes + neededBytes - limitBytes, neededBytes - availableBytes);
  const victims: Copy[] = [];
  const unused = copies.filter(({ state, uses }) => state === "ready" && uses === 0);
  for (const copy of unused.toSorted((a, b) => a.lastUsedAt.getTime() - b.lastUsedAt.getTime())) {
    if (missingBytes <= 0) break;
    victims.push(copy);
    missingBytes -= copy.sizeBytes;
  }
  return victims;
}

import type { Database } from "../db/client.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostImageId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import type { Wakes } from "../operations/operation-channels.ts";
import { wakeAfterChange } from "../operations/operation-wakes.ts";
import { planRoom } from "./cache-room.ts";
import { hostImagesOf, overfullPools, uselessHostImages } from "./host-image-store.ts";
import { evictUnused, type ImageCacheDeps } from "./image-cache.ts";

export interface CacheSweeperDeps extends ImageCacheDeps {
  readonly db: Database;
  readonly wakes: Wakes;
  readonly logger: Log;
  /** Between two looks; 5 s without. */
  readonly everyMs?: number;
}

const EVERY_MS = 5_000;
/** A portion that holds no lock for long; what is left over comes with the next look. */
const PORTION = 100;

/**
 * Queues the removal of copies that nobody needs: those of deleted images, those that are not whole, and the least
 * recently used ones where there are more than the limit allows. Any number of workers may do it.
 */
export function startCacheSweeper(deps: CacheSweeperDeps): { stop(): Promise<void> } {
  let sweeping: Promise<void> | null = null;
  const sweep = (): void => {
    sweeping ??= sweepCaches(deps)
      .then((evicted) => {
        if (evicted > 0) wakeAfterChange(deps.wakes);
      })
      .catch((error: unknown) => {
        deps.logger.warn(
          { error: messageOf(error) },
          "could not look for copies of images that nobody needs; trying again later",
        );
      })
      .finally(() => {
        sweeping = null;
      });
  };
  const timer = setInterval(sweep, deps.everyMs ?? EVERY_MS).unref();
  return {
    async stop() {
      clearInterval(timer);
      await sweeping;
    },
  };
}

/** One look. Returns how many removals were queued. */
async function sweepCaches(deps: CacheSweeperDeps): Promise<number> {
  const { db, limitBytes } = deps;
  const useless = await uselessHostImages(db, PORTION);
  const surplus: HostImageId[] = [];
  for (const { hostId, pool } of await overfullPools(db, limitBytes)) {
    const victims = planRoom(await hostImagesOf(db, hostId, pool), 0, { limitBytes, availableBytes: 0 });
    surplus.push(...victims.map(({ id }) => id));
  }
  let evicted = 0;
  for (const id of new Set([...useless, ...surplus.slice(0, PORTION)])) {
    const operationId = await db.transaction((tx) => evictUnused(tx, deps, id));
    if (operationId !== null) evicted++;
  }
  return evicted;
}

import type { Sql } from "../db/transaction.ts";
import { deleteOldEvents } from "../events/event-store.ts";
import { deleteOutlivedKeys } from "../http/idempotency-store.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { deleteOldOperations } from "./operation-retention.ts";

export interface HistoryCleanerDeps {
  readonly db: Sql;
  readonly logger: Log;
  /** How long ended operations and events are kept; 90 without. */
  readonly keepDays?: number;
}

// Small portions: none holds locks for long, and a backlog is worked off in the background.
const PORTION = 1_000;
const MOST_PORTIONS = 100;
const EVERY_MS = 60 * 60 * 1000;

/** Removes what is old, now and once an hour. Any number of workers may do it. Returns how to stop. */
export function startHistoryCleaner(deps: HistoryCleanerDeps): { stop(): Promise<void> } {
  let stopped = false;
  let cleaning: Promise<void> = Promise.resolve();
  const clean = (): void => {
    cleaning = cleaning.then(async () => {
      try {
        await cleanHistory(deps, () => stopped);
      } catch (error) {
        deps.logger.warn(
          { error: messageOf(error) },
          "could not remove old operations, events and keys; trying again later",
        );
      }
    });
  };
  const timer = setInterval(clean, EVERY_MS).unref();
  clean();
  return {
    async stop() {
      stopped = true;
      clearInterval(timer);
      await cleaning;
    },
  };
}

/** One round. Returns how many rows of each were removed. */
export async function cleanHistory(
  { db, keepDays = 90 }: HistoryCleanerDeps,
  isStopped: () => boolean = () => false,
): Promise<{ readonly operations: number; readonly events: number; readonly keys: number }> {
  const operations = await inPortions(() => deleteOldOperations(db, keepDays, PORTION), isStopped);
  const events = await inPortions(() => deleteOldEvents(db, keepDays, PORTION), isStopped);
  const keys = await inPortions(() => deleteOutlivedKeys(db, new Date(), PORTION), isStopped);
  return { operations, events, keys };
}

async function inPortions(remove: () => Promise<number>, isStopped: () => boolean): Promise<number> {
  let total = 0;
  for (let portion = 0; portion < MOST_PORTIONS && !isStopped(); portion++) {
    const removed = await remove();
    total += removed;
    if (removed < PORTION) break;
  }
  return total;
}

import type { Database } from "../db/client.ts";
import { messageOf } from "../lib/errors.ts";
import type { InstallationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { type Orphan, ripeOrphans } from "./orphan-store.ts";

export interface OrphanCollectorDeps {
  readonly db: Database;
  readonly logger: Log;
  readonly kinds: KindRegistry;
  readonly installationId: InstallationId;
  /** How long a volume must be known to be nobody's; 0: none is ever deleted. */
  readonly graceSeconds: number;
  /** Called after something was queued. */
  readonly wake: () => void;
}

const LONGEST_PAUSE_MS = 60_000;
const AT_ONCE = 100;

/** Queues the delete of orphans whose grace time is over, at a steady pace. Any number of workers may do it. */
export function startOrphanCollector(deps: OrphanCollectorDeps): { stop(): Promise<void> } {
  if (deps.graceSeconds === 0) return { stop: () => Promise.resolve() };
  let collecting: Promise<void> = Promise.resolve();
  const collect = (): void => {
    collecting = collecting.then(async () => {
      try {
        await collectOrphans(deps);
      } catch (error) {
        deps.logger.warn(
          { error: messageOf(error) },
          "could not collect orphaned volumes; trying again later",
        );
      }
    });
  };
  const timer = setInterval(collect, Math.min(LONGEST_PAUSE_MS, deps.graceSeconds * 500)).unref();
  return {
    async stop() {
      clearInterval(timer);
      await collecting;
    },
  };
}

async function collectOrphans(deps: OrphanCollectorDeps): Promise<void> {
  const ripe = await ripeOrphans(deps.db, deps.installationId, deps.graceSeconds, AT_ONCE);
  for (const orphan of ripe) await collectOne(deps, orphan);
  if (ripe.length > 0) deps.wake();
}

async function collectOne({ db, kinds, logger }: OrphanCollectorDeps, orphan: Orphan): Promise<void> {
  const { id, projectId, nameInPool, host } = orphan;
  // Two workers may both ask: the second finds nothing left to do.
  await db.transaction(async (tx) => {
    await enqueue(
      tx,
      {
        kind: kinds.get("volume.delete"),
        input: { volumeId: id, orphan: true },
        subjects: [{ kind: "volume", id, mode: "exclusive" }],
        targets: [{ kind: "volume", id, name: nameInPool }],
        hosts: [host],
        ...{ projectId, actor: "system", requestId: null },
      },
      kinds,
    );
  });
  logger.info({ volume: id, nameInPool, host }, "an orphaned volume is deleted");
}

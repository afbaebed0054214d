import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { type BuildSweepDeps, collectLog, sweepBuilds } from "./build/sweep-builds.ts";
import { type ContentsDeps, collectContent, sweepContents } from "./image-contents.ts";

/** Removes contents, builds and their logs that nothing refers to any more, in the background: no answer waits for a disk. */
export interface ContentCollector {
  /**
   * Looks whether the content is still wanted, and removes it if not. May be called inside the transaction that ends
   * its use, provided that this holds the content's lock: the look then waits for the end of the transaction.
   */
  readonly collect: (sha256: string) => void;
  /** Removes the log of an image's build once the image is deleted: waits for the transaction that does it. */
  readonly collectLog: (imageId: string) => void;
  /** Sweeps now, then at a steady pace; a sweep that fails is logged and tried again at the next turn. */
  start(): void;
  /** Ends the sweeps and waits for what is under way. */
  stop(): Promise<void>;
}

export interface CollectorDeps extends ContentsDeps, BuildSweepDeps {
  readonly log: Log;
  /** Between two sweeps; an hour without. */
  readonly sweepSeconds?: number;
}

export function createContentCollector({
  log,
  sweepSeconds = 3600,
  ...deps
}: CollectorDeps): ContentCollector {
  const underWay = new Set<Promise<void>>();
  let timer: NodeJS.Timeout | undefined;
  const track = (work: Promise<void>, what: string) => {
    const tracked = work
      .catch((error: unknown) => {
        log.warn({ error: messageOf(error) }, `${what}; the next sweep tries again`);
      })
      .finally(() => underWay.delete(tracked));
    underWay.add(tracked);
  };
  const sweep = () => {
    track(
      sweepAll(deps).then(({ contents, incoming, builds }) => {
        if (contents + incoming + builds > 0)
          log.info({ contents, incoming, builds }, "removed image files that nothing refers to");
      }),
      "could not sweep the image directory",
    );
  };
  return {
    collect(sha256) {
      track(
        collectContent(deps, sha256).then(() => undefined),
        "could not remove an image's content",
      );
    },
    collectLog(imageId) {
      track(
        collectLog(deps, imageId).then(() => undefined),
        "could not remove the log of an image's build",
      );
    },
    start() {
      if (timer !== undefined) return;
      sweep();
      timer = setInterval(sweep, sweepSeconds * 1000);
      timer.unref();
    },
    async stop() {
      clearInterval(timer);
      timer = undefined;
      while (underWay.size > 0) await Promise.all(underWay);
    },
  };
}

async function sweepAll(deps: ContentsDeps & BuildSweepDeps) {
  return { ...(await sweepContents(deps)), builds: await sweepBuilds(deps) };
}

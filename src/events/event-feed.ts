import type { Listener } from "../db/listener.ts";
import type { Sql } from "../db/transaction.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { NUMBERED } from "./event-channels.ts";
import { type EventFilter, type EventRecord, latestEventSeq, listEvents } from "./event-store.ts";

export interface Following {
  /** The last event that the reader has; 0 begins with the oldest that is kept. */
  readonly after: bigint;
  readonly filter: EventFilter;
  readonly signal: AbortSignal;
}

/** The events of one process's readers: each new event is noticed once for all of them. */
export interface EventFeed {
  /**
   * Every event after the cursor that matches, as they come, until the signal aborts. Yields in portions, the
   * first one at once. While the database is away it waits; it never rejects.
   */
  follow(following: Following): AsyncGenerator<readonly EventRecord[], void>;
  close(): void;
}

const PORTION = 500;
const POLL_MS = 1_000;

export function createEventFeed(deps: {
  readonly db: Sql;
  readonly wakes: Pick<Listener, "listen">;
  readonly logger: Log;
}): EventFeed {
  return new Feed(deps);
}

class Feed implements EventFeed {
  readonly #db: Sql;
  readonly #logger: Log;
  readonly #unlisten: () => void;
  readonly #poll: NodeJS.Timeout;
  readonly #sleepers = new Set<() => void>();
  #latest = 0n;
  #looking = false;
  #again = false;
  #closed = false;

  constructor({
    db,
    wakes,
    logger,
  }: { readonly db: Sql; readonly wakes: Pick<Listener, "listen">; readonly logger: Log }) {
    this.#db = db;
    this.#logger = logger;
    this.#unlisten = wakes.listen(NUMBERED, () => void this.#look());
    this.#poll = setInterval(() => void this.#look(), POLL_MS).unref();
  }

  async *follow({ after, filter, signal }: Following): AsyncGenerator<readonly EventRecord[], void> {
    let cursor = after;
    while (!this.#isOver(signal)) {
      // Read before the events: what comes in between is seen by the next round.
      const latest = this.#latest;
      const events = await this.#read(cursor, filter);
      const last = events?.at(-1);
      if (events !== null && last !== undefined) {
        cursor = last.seq;
        yield events;
      }
      if (events?.length === PORTION) continue;
      // Nothing that matches lies between: a filter that matches little must not read all of it again.
      if (events !== null && latest > cursor) cursor = latest;
      await this.#newer(cursor, signal);
    }
  }

  close(): void {
    this.#closed = true;
    this.#unlisten();
    clearInterval(this.#poll);
    this.#wakeAll();
  }

  #isOver(signal: AbortSignal): boolean {
    return this.#closed || signal.aborted;
  }

  async #read(after: bigint, filter: EventFilter): Promise<EventRecord[] | null> {
    try {
      return await listEvents(this.#db, { after, limit: PORTION, filter });
    } catch (error) {
      this.#logger.debug({ error: messageOf(error) }, "could not read events; trying again");
      return null;
    }
  }

  /** Sleeps until there is an event after the cursor, or the next look. */
  async #newer(cursor: bigint, signal: AbortSignal): Promise<void> {
    if (this.#isOver(signal)) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const wake = (): void => {
      if (this.#latest > cursor || this.#isOver(signal)) resolve(undefined);
    };
    this.#sleepers.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    void this.#look();
    await promise;
    this.#sleepers.delete(wake);
    signal.removeEventListener("abort", wake);
  }

  async #look(): Promise<void> {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    while (this.#again && this.#sleepers.size > 0) {
      this.#again = false;
      try {
        this.#latest = await latestEventSeq(this.#db);
        this.#wakeAll();
      } catch (error) {
        this.#logger.debug({ error: messageOf(error) }, "could not look for new events; trying again");
        break;
      }
    }
    this.#looking = false;
  }

  #wakeAll(): void {
    for (const wake of this.#sleepers) wake();
  }
}

import type { Sql } from "../db/transaction.ts";
import { messageOf } from "../lib/errors.ts";
import type { OperationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { ENDED, type Wakes } from "./operation-channels.ts";

export interface OperationWaits {
  /**
   * Resolves when all these operations have ended, the time is up, or the signal aborts: look at the operations to
   * learn which. Never rejects.
   */
  waitForOperations(ids: readonly OperationId[], seconds: number, signal?: AbortSignal): Promise<void>;
  /** Ends every wait at once. */
  close(): void;
}

interface Waiter {
  readonly left: Set<string>;
  readonly done: () => void;
}

const POLL_MS = 1_000;

/** The waits of one process: one query answers all of them, however many there are. */
export function createOperationWaits(deps: {
  readonly db: Sql;
  readonly wakes: Wakes;
  readonly logger: Log;
}): OperationWaits {
  return new Waits(deps);
}

class Waits implements OperationWaits {
  readonly #db: Sql;
  readonly #logger: Log;
  readonly #waiters = new Set<Waiter>();
  readonly #unlisten: () => void;
  readonly #poll: NodeJS.Timeout;
  #looking = false;
  #again = false;

  constructor({ db, wakes, logger }: { readonly db: Sql; readonly wakes: Wakes; readonly logger: Log }) {
    this.#db = db;
    this.#logger = logger;
    this.#unlisten = wakes.listen(ENDED, () => void this.#look());
    this.#poll = setInterval(() => void this.#look(), POLL_MS).unref();
  }

  async waitForOperations(ids: readonly OperationId[], seconds: number, signal?: AbortSignal): Promise<void> {
    if (ids.length === 0 || seconds <= 0 || signal?.aborted === true) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const done = (): void => {
      resolve(undefined);
    };
    const waiter: Waiter = { left: new Set(ids), done };
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", done, { once: true });
    this.#waiters.add(waiter);
    void this.#look();
    await promise;
    this.#waiters.delete(waiter);
    clearTimeout(timer);
    signal?.removeEventListener("abort", done);
  }

  close(): void {
    this.#unlisten();
    clearInterval(this.#poll);
    for (const waiter of this.#waiters) waiter.done();
  }

  /** One look at a time; wake-ups that come meanwhile become one more. */
  async #look(): Promise<void> {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    while (this.#again && this.#waiters.size > 0) {
      this.#again = false;
      try {
        await this.#answer();
      } catch (error) {
        this.#logger.debug({ error: messageOf(error) }, "could not look whether operations have ended");
        break;
      }
    }
    this.#looking = false;
  }

  async #answer(): Promise<void> {
    // Those that begin to wait during the query are asked for by the next one.
    const waiters = [...this.#waiters];
    const ids = [...new Set(waiters.flatMap((waiter) => [...waiter.left]))];
    // An operation whose row is gone has ended long ago.
    const open = await this.#db.$queryRaw<{ id: string }[]>`
      SELECT id FROM operation WHERE id = ANY(${ids}::text[]::uuid[]) AND ended_at IS NULL`;
    const unfinished = new Set(open.map(({ id }) => id));
    for (const waiter of waiters) {
      for (const id of waiter.left) if (!unfinished.has(id)) waiter.left.delete(id);
      if (waiter.left.size === 0) waiter.done();
    }
  }
}

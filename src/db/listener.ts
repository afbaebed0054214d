import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { DroverError, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { Session } from "./session.ts";
import { sqlStateOf } from "./sql-state.ts";

export interface ListenerOptions {
  /** A direct connection: behind PgBouncer in transaction mode LISTEN and session locks are lost silently. */
  readonly url: string;
  readonly logger: Log;
  /** Called on every loss of the connection, at once: the session's lock is gone with it. */
  readonly onLost?: () => void;
  /** Called at each attempt to reconnect that got no word from a server: there is none, or it is silent. */
  readonly onSilence?: () => void;
}

const GATHER_MS = 5;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 3_000;

/** Connects and returns; rejects when the first connection fails. Later losses are repaired in the background. */
export async function openListener(options: ListenerOptions): Promise<Listener> {
  const listener = new Listener(options);
  await listener.connect();
  return listener;
}

/** One connection for wake-ups and for a lock that lives exactly as long as the connection does. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #wakes = new Map<string, Set<() => void>>();
  readonly #toNotify = new Set<string>();
  /** Channels whose listeners here are woken with the next notification that is sent. */
  readonly #toWake = new Set<string>();
  readonly #wokenAt = new Map<string, number>();
  #session: Session | null = null;
  #lockKey: bigint | null = null;
  #lockHeld = false;
  #notifying = false;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;

  /** Not connected yet: see openListener. */
  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Makes the connection and gives it everything that was asked for so far. */
  async connect(): Promise<void> {
    const session = await Session.open({
      url: this.#options.url,
      onNotification: (channel, isOwn) => {
        // Those of this process were woken when it was sent.
        if (!isOwn) this.#wake(channel);
      },
      onLost: (lost, reason) => {
        this.#lost(lost, reason);
      },
    });
    try {
      if (this.#lockKey !== null) await this.#lockAgain(session, this.#lockKey);
      // The map is read live: what is added while this loop waits is listened to as well.
      for (const channel of this.#wakes.keys()) await session.run(listenTo(channel));
      if (this.#closed || !session.isOpen()) throw new Error("the connection was lost while it was set up");
    } catch (error) {
      await session.close();
      throw error;
    }
    this.#session = session;
    for (const channel of this.#wakes.keys()) this.#wake(channel);
    void this.#sendNotifications();
  }

  /**
   * Calls `wake` after a notification on the channel, and after every reconnect, for some may have been missed. A
   * wake-up says "look", never what changed; it may come for nothing. Returns how to stop.
   */
  listen(channel: string, wake: () => void): () => void {
    const wakes = this.#wakes.get(channel);
    if (wakes === undefined) {
      this.#wakes.set(channel, new Set([wake]));
      this.#session?.run(listenTo(channel)).catch(() => undefined); // a failure ends the session; the next one listens
    } else wakes.add(wake);
    return () => {
      this.#wakes.get(channel)?.delete(wake);
    };
  }

  /**
   * Wakes every listener of the channel, this listener's own at once. Outside any transaction, so call it after commit;
   * calls that come close behind one another become one. Never fails: a poll is everybody's backstop.
   */
  notify(channel: string): void {
    this.#toNotify.add(channel);
    const now = performance.now();
    if (now - (this.#wokenAt.get(channel) ?? -Infinity) < GATHER_MS) this.#toWake.add(channel);
    else {
      this.#wokenAt.set(channel, now);
      this.#wake(channel);
    }
    void this.#sendNotifications();
  }

  /**
   * Keeps a session advisory lock from now on, taken again after every reconnect. False, and nothing is kept, when
   * another session holds it. Throws DroverError `unavailable` without a connection. One key a listener.
   */
  async holdLock(key: bigint): Promise<boolean> {
    if (this.#lockKey !== null)
      throw new TypeError(`the listener holds lock ${this.#lockKey.toString()} already`);
    if (this.#session === null)
      throw new DroverError("unavailable", "The database cannot be reached; try again.");
    const held = await tryLock(this.#session, key);
    if (held) this.#lockKey = key;
    this.#lockHeld = held;
    return held;
  }

  /**
   * Runs one statement on this connection, after those before it, however busy the pool is. Rejects when it fails or
   * gets no answer in 5 seconds, which ends the connection, and with a DroverError `unavailable` where there is none.
   */
  async run<Row extends pg.QueryResultRow>(sql: string, values: readonly unknown[]): Promise<readonly Row[]> {
    if (this.#session === null)
      throw new DroverError("unavailable", "The database cannot be reached; try again.");
    return await this.#session.run<Row>(sql, values);
  }

  /** True while the connection stands, and with it the lock that was asked for. */
  isHealthy(): boolean {
    return this.#session !== null && (this.#lockKey === null || this.#lockHeld);
  }

  /** Ends the connection, and with it the lock. Nothing is called afterwards. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const session = this.#session;
    this.#session = null;
    this.#lockHeld = false;
    if (session !== null && this.#toNotify.size > 0) await this.#sendNow(session);
    await session?.close();
  }

  /** After a network failure the server may keep the old session for a while: then the reconnect is tried again. */
  async #lockAgain(session: Session, key: bigint): Promise<void> {
    this.#lockHeld = await tryLock(session, key);
    if (!this.#lockHeld) throw new Error(`another session holds lock ${key.toString()}`);
  }

  #wake(channel: string): void {
    if (this.#closed) return;
    for (const wake of this.#wakes.get(channel) ?? []) wake();
  }

  async #sendNotifications(): Promise<void> {
    if (this.#notifying) return;
    this.#notifying = true;
    while (this.#session !== null && this.#toNotify.size > 0) {
      if (!(await this.#sendNow(this.#session))) break;
      // What comes meanwhile goes out together: under load every change would else wake every process.
      await sleep(GATHER_MS, undefined, { ref: false });
    }
    this.#notifying = false;
  }

  async #sendNow(session: Session): Promise<boolean> {
    const channels = [...this.#toNotify];
    this.#toNotify.clear();
    for (const channel of this.#toWake) this.#wake(channel);
    this.#toWake.clear();
    try {
      await session.run("SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel", [channels]);
      return true;
    } catch {
      for (const channel of channels) this.#toNotify.add(channel); // the session is over; the next one sends them
      return false;
    }
  }

  #lost(session: Session, reason: string): void {
    if (session !== this.#session || this.#closed) return; // lost while it was set up: connect() sees to it
    this.#session = null;
    this.#lockHeld = false;
    this.#options.logger.warn({ reason }, "lost the database connection for wake-ups; reconnecting");
    this.#options.onLost?.();
    this.#reconnectAfter(FIRST_PAUSE_MS);
  }

  #reconnectAfter(pauseMs: number): void {
    if (this.#closed) return;
    this.#retry = setTimeout(
      () => {
        this.connect().then(
          () => {
            this.#options.logger.info({}, "the database connection for wake-ups is back");
          },
          (error: unknown) => {
            this.#options.logger.debug({ error: messageOf(error) }, "could not reconnect to the database");
            if (sqlStateOf(error) === null && !this.#closed) this.#options.onSilence?.();
            this.#reconnectAfter(Math.min(LONGEST_PAUSE_MS, pauseMs * 2));
          },
        );
      },
      pauseMs * (0.5 + Math.random() / 2),
    );
  }
}

function listenTo(channel: string): string {
  return `LISTEN ${pg.escapeIdentifier(channel)}`;
}

async function tryLock(session: Session, key: bigint): Promise<boolean> {
  const rows = await session.run<{ held: boolean }>("SELECT pg_try_advisory_lock($1) AS held", [
    key.toString(),
  ]);
  return rows[0]?.held === true;
}

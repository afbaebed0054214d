import { setTimeout as sleep } from "node:timers/promises";
import { connectLibvirt } from "./connect.ts";
import type { LibvirtConnection } from "./connection.ts";
import { ConnectionError, LibvirtError } from "./errors.ts";
import { Listeners } from "./listeners.ts";
import type { CallOptions, ConnectOptions } from "./options.ts";
import type { Procedure } from "./procedure.ts";
import { connectDomainEventCallbackRegisterAny } from "./procedures/connect.ts";
import { type DomainEvent, type DomainEventKind, domainEventId } from "./procedures/events.ts";

const BACKOFF = { initialMs: 500, maxMs: 30_000 };

export type SessionState = "connected" | "disconnected";

export interface SessionOptions extends Omit<ConnectOptions, "signal"> {
  /** Registered for on every connection. A kind the daemon is too old for is left out. */
  readonly events?: readonly DomainEventKind[];
  /** The wait before another attempt doubles from `initialMs` to `maxMs`. Default 500 and 30,000. */
  readonly backoff?: { readonly initialMs: number; readonly maxMs: number };
  /** A number in [0, 1), so that hosts that went away together do not come back together. */
  readonly random?: () => number;
}

/**
 * A connection that is made again whenever it breaks. What happened on the host in between is not
 * told: take stock after every "connected", which comes when events are already flowing.
 */
export class LibvirtSession {
  readonly #options: SessionOptions;
  readonly #backoff: { readonly initialMs: number; readonly maxMs: number };
  readonly #stop = new AbortController();
  readonly #states = new Listeners<[SessionState, Error | undefined]>();
  readonly #events = new Listeners<[DomainEvent]>();
  #connection: LibvirtConnection | null = null;
  #running: Promise<void> | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? BACKOFF;
  }

  /** The connection there is now, for streams and the like; null while there is none. */
  get connection(): LibvirtConnection | null {
    return this.#connection;
  }

  /** Begins to connect. Calling it again changes nothing. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** As LibvirtConnection.call; rejects at once while there is no connection. */
  call<Args, Result>(procedure: Procedure<Args, Result>, args: Args, options?: CallOptions): Promise<Result> {
    if (this.#connection === null) {
      return Promise.reject(
        new ConnectionError("closed", "there is no connection to the host at the moment"),
      );
    }
    return this.#connection.call(procedure, args, options);
  }

  /** "disconnected" comes with its reason, and again after every failed attempt. Returns the way to stop. */
  onState(listener: (state: SessionState, error?: Error) => void): () => void {
    return this.#states.add(listener);
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    return this.#events.add(listener);
  }

  /** Ends the session for good. Resolves when nothing of it is left. */
  async close(): Promise<void> {
    this.#stop.abort(new ConnectionError("closed", "the session was closed by us"));
    await this.#running;
    this.#states.clear();
    this.#events.clear();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      const since = performance.now();
      const error = await this.#connectOnce();
      // One that held for a while starts afresh; one that breaks at once is as good as none.
      failures = performance.now() - since > this.#backoff.maxMs ? 0 : failures + 1;
      this.#states.emit("disconnected", error);
      await this.#wait(failures);
    }
  }

  /** Connects and stays connected for as long as that lasts. Returns why it ended or did not come about. */
  async #connectOnce(): Promise<Error> {
    const { signal } = this.#stop;
    let connection: LibvirtConnection | null = null;
    try {
      connection = await connectLibvirt({ ...this.#options, signal });
      return await this.#hold(connection, signal);
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    } finally {
      this.#connection = null;
      await connection?.close();
    }
  }

  async #hold(connection: LibvirtConnection, signal: AbortSignal): Promise<Error> {
    const { promise: ended, resolve: end } = Promise.withResolvers<Error>();
    const abort = (): void => {
      end(new ConnectionError("closed", "the session was closed by us"));
    };
    connection.onClose(end);
    connection.onEvent((event) => {
      this.#events.emit(event);
    });
    signal.addEventListener("abort", abort, { once: true });
    try {
      await this.#register(connection, signal);
      this.#connection = connection;
      this.#states.emit("connected", undefined);
      return await ended;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  async #register(connection: LibvirtConnection, signal: AbortSignal): Promise<void> {
    for (const kind of this.#options.events ?? []) {
      try {
        const args = { eventId: domainEventId[kind], domain: null };
        await connection.call(connectDomainEventCallbackRegisterAny, args, { signal });
      } catch (error) {
        if (!(error instanceof LibvirtError && error.unsupported)) throw error;
      }
    }
  }

  async #wait(failures: number): Promise<void> {
    const { initialMs, maxMs } = this.#backoff;
    const full = Math.min(maxMs, initialMs * 2 ** Math.min(Math.max(failures - 1, 0), 30));
    const random = this.#options.random ?? Math.random;
    try {
      await sleep(full * (0.5 + random() / 2), undefined, { signal: this.#stop.signal });
    } catch {
      // Only the end of the session cuts the wait short, and the loop looks for that.
    }
  }
}

import type { LibvirtConnection } from "../../libvirt-rpc/index.ts";
import type { Call } from "../hypervisor.ts";
import { HypervisorError } from "../hypervisor.ts";

/** Connections kept open while nobody uses them: opening one over ssh takes a good part of a second. */
const MAX_IDLE = 2;

export type OpenConnection = (signal: AbortSignal, timeoutMs: number) => Promise<LibvirtConnection>;

/**
 * Further connections to one daemon, each used for one call at a time, opened when needed. The daemon serves five
 * calls of one client at once, so a few calls on a hung guest would stop all others; and a stream holds up what
 * shares its connection. A connection whose call did not come to its end is thrown away with it.
 */
export class SideConnections {
  readonly #open: OpenConnection;
  readonly #limit: number;
  readonly #idle: LibvirtConnection[] = [];
  readonly #all = new Set<LibvirtConnection>();
  readonly #waiting = new Set<() => void>();
  #inUse = 0;
  #closed = false;

  constructor(open: OpenConnection, limit: number) {
    this.#open = open;
    this.#limit = limit;
  }

  /**
   * Runs `work` with a connection of its own, waiting for a free place first.
   * @param isHarmless says of an error that the daemon has answered, so that the connection can go on being used
   */
  async use<Result>(
    call: Call,
    work: (connection: LibvirtConnection) => Promise<Result>,
    isHarmless: (error: unknown) => boolean,
  ): Promise<Result> {
    await this.#takePlace(call.signal);
    try {
      const connection = await this.#acquire(call);
      try {
        const result = await work(connection);
        this.#release(connection);
        return result;
      } catch (error) {
        if (isHarmless(error)) this.#release(connection);
        else this.#discard(connection);
        throw error;
      }
    } finally {
      this.#inUse -= 1;
      this.#admitNext();
    }
  }

  /** Closes every connection; calls under way are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#admitNext();
    this.#idle.length = 0;
    await Promise.all([...this.#all].map((connection) => connection.close()));
  }

  async #takePlace(signal: AbortSignal): Promise<void> {
    while (!this.#closed && this.#inUse >= this.#limit) await this.#turn(signal);
    if (this.#closed) throw new HypervisorError("unreachable", "the connection to the host was closed");
    if (signal.aborted) {
      // The place that it was woken for is for the next.
      this.#admitNext();
      signal.throwIfAborted();
    }
    this.#inUse += 1;
  }

  #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const wake = (): void => {
      this.#waiting.delete(wake);
      signal.removeEventListener("abort", wake);
      resolve(undefined);
    };
    this.#waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    return promise;
  }

  #admitNext(): void {
    for (const wake of [...this.#waiting].slice(0, this.#closed ? undefined : 1)) wake();
  }

  async #acquire({ signal, timeoutMs }: Call): Promise<LibvirtConnection> {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    const connection = await this.#open(signal, timeoutMs);
    if (this.#closed) {
      await connection.close();
      throw new HypervisorError("unreachable", "the connection to the host was closed");
    }
    this.#all.add(connection);
    connection.onClose(() => {
      this.#all.delete(connection);
      const index = this.#idle.indexOf(connection);
      if (index >= 0) this.#idle.splice(index, 1);
    });
    return connection;
  }

  #release(connection: LibvirtConnection): void {
    if (connection.closed || this.#closed || this.#idle.length >= MAX_IDLE) this.#discard(connection);
    else this.#idle.push(connection);
  }

  #discard(connection: LibvirtConnection): void {
    // Nobody waits for the end of a connection that is no longer used; close() never rejects.
    void connection.close();
  }
}

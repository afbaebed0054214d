import { ConnectionError } from "./errors.ts";
import { type Message, messageType } from "./frame.ts";
import type { Procedure } from "./procedure.ts";
import type { StreamEnd, StreamPort } from "./streams.ts";
import type { Wire } from "./wire.ts";

/** The streams that are open on one connection, and what they share: the socket's two directions. */
export class OpenStreams {
  readonly #wire: Wire;
  readonly #onPaused: (paused: boolean) => void;
  readonly #streams = new Map<number, StreamEnd>();
  readonly #pausedBy = new Set<number>();
  #drainWaiters: (() => void)[] = [];

  /** @param onPaused told when the socket is no longer read, or read again */
  constructor(wire: Wire, onPaused: (paused: boolean) => void) {
    this.#wire = wire;
    this.#onPaused = onPaused;
  }

  /** Ties a stream to the call with this serial, which has just been sent. */
  open(
    stream: StreamEnd,
    procedure: Procedure<never, unknown>,
    serial: number,
    beforeSend?: () => void,
  ): void {
    this.#streams.set(serial, stream);
    stream.opened(this.#portFor(procedure, serial, beforeSend));
  }

  /** Hands a packet to its stream. One we gave up goes on until the daemon has read so: that is dropped. */
  receive(message: Message): void {
    this.#streams.get(message.serial)?.packet(message.status, message.body);
  }

  drained(): void {
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const waiter of waiters) waiter();
  }

  close(error: ConnectionError): void {
    this.#drainWaiters = [];
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.destroy(error);
  }

  #portFor(procedure: Procedure<never, unknown>, serial: number, beforeSend?: () => void): StreamPort {
    const { name, program, number } = procedure;
    const wire = this.#wire;
    const release = (): void => {
      this.#streams.delete(serial);
      this.#setPaused(serial, false);
    };
    return {
      send: (status, body) => {
        try {
          beforeSend?.();
        } catch (error) {
          // Not even the packet that gives the stream up may be sent, so the connection must tell.
          release();
          wire.fail(new ConnectionError("closed", `${name} was stopped half way`, { cause: error }));
          throw error;
        }
        wire.sendBulk({ program, procedure: number, type: messageType.stream, serial, status }, body);
      },
      isCongested: () => wire.congested,
      onceDrained: (then) => {
        this.#drainWaiters.push(then);
      },
      setPaused: (paused) => {
        this.#setPaused(serial, paused);
      },
      release,
    };
  }

  #setPaused(serial: number, paused: boolean): void {
    const before = this.#pausedBy.size > 0;
    if (paused) this.#pausedBy.add(serial);
    else this.#pausedBy.delete(serial);
    const after = this.#pausedBy.size > 0;
    if (before === after) return;
    this.#onPaused(after);
    if (after) this.#wire.pause();
    else this.#wire.resume();
  }
}

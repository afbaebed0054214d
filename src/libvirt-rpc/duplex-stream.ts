import { Duplex } from "node:stream";
import { decodeError, toError } from "./calls.ts";
import { messageStatus } from "./frame.ts";
import {
  abandon,
  NO_BYTES,
  PACKET_MAX_BYTES,
  type StreamEnd,
  type StreamPort,
  sendPackets,
} from "./streams.ts";

/**
 * Bytes in both directions, such as a console's. It ends as a whole: when the daemon has nothing more to say, or when
 * we have ended it and the daemon has confirmed. Nothing is held back in either direction beyond a packet or two.
 */
export class DuplexStream extends Duplex implements StreamEnd {
  readonly #procedure: string;
  #port: StreamPort | null = null;
  #confirmed: (() => void) | null = null;

  constructor(procedure: string) {
    super({ allowHalfOpen: false, highWaterMark: PACKET_MAX_BYTES });
    this.#procedure = procedure;
    // It can fail before anybody has it; `errored` keeps the reason.
    this.on("error", () => undefined);
  }

  opened(port: StreamPort): void {
    this.#port = port;
  }

  packet(status: number, body: Buffer): void {
    if (status === messageStatus.error) {
      this.#release();
      this.destroy(decodeError(this.#procedure, body));
    } else if (status === messageStatus.ok) {
      this.#release();
      this.#confirmed?.();
      this.push(null);
    } else if (body.length > 0) {
      if (!this.push(body)) this.#port?.setPaused(true);
    } else {
      this.#sendEnd((error) => {
        if (error) this.destroy(error);
      });
    }
  }

  override _read(): void {
    this.#port?.setPaused(false);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const port = this.#port;
    if (port === null) done(new Error(`${this.#procedure} has no open stream`));
    else sendPackets(port, chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#port === null) {
      done();
      return;
    }
    this.#confirmed = done;
    // A paused socket would never bring the confirmation.
    this.#port.setPaused(false);
    this.#sendEnd((error) => {
      if (error) done(error);
    });
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const failure = abandon(this.#port);
    this.#port = null;
    done(error ?? failure);
  }

  /** The daemon answers with its own end; until then it may still report a failure. */
  #sendEnd(done: (error?: Error) => void): void {
    try {
      this.#port?.send(messageStatus.ok, NO_BYTES);
      done();
    } catch (error) {
      done(toError(error));
    }
  }

  #release(): void {
    this.#port?.release();
    this.#port = null;
  }
}

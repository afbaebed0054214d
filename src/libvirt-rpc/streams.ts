/**
 * Bulk data within a call: after its reply both sides send packets with the call's serial. We hold
 * little in either direction: an upload waits while the socket is congested, and a download stops
 * reading the socket while its consumer is slow.
 */
import { Readable, Writable } from "node:stream";
import { decodeError, toError } from "./calls.ts";
import { messageStatus } from "./frame.ts";

/** VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX less a header: what every daemon takes in one packet. */
export const PACKET_MAX_BYTES = 262_120;

/** A stream's way to its connection, once the call was sent. */
export interface StreamPort {
  /** Runs `beforeSend`, which may throw; then nothing is sent. */
  send(status: number, body: Uint8Array): void;
  isCongested(): boolean;
  onceDrained(then: () => void): void;
  setPaused(paused: boolean): void;
  /** Packets for this stream are dropped from here on. */
  release(): void;
}

/** What a connection tells a stream. */
export interface StreamEnd {
  opened(port: StreamPort): void;
  packet(status: number, body: Buffer): void;
  destroy(error: Error): void;
}

export const NO_BYTES = new Uint8Array(0);

/** Sends bytes in packets that every daemon takes, and waits while the socket is congested. */
export function sendPackets(port: StreamPort, chunk: Buffer, done: (error?: Error | null) => void): void {
  if (port.isCongested()) {
    port.onceDrained(() => {
      sendPackets(port, chunk, done);
    });
    return;
  }
  try {
    port.send(messageStatus.continue, chunk.subarray(0, PACKET_MAX_BYTES));
  } catch (error) {
    done(toError(error));
    return;
  }
  if (chunk.length > PACKET_MAX_BYTES) sendPackets(port, chunk.subarray(PACKET_MAX_BYTES), done);
  else if (port.isCongested()) port.onceDrained(done);
  else done();
}

/** Tells the daemon to drop a stream that did not come to its end. */
export function abandon(port: StreamPort | null): Error | null {
  if (port === null) return null;
  try {
    port.send(messageStatus.error, NO_BYTES);
    return null;
  } catch (error) {
    return toError(error);
  } finally {
    port.release();
  }
}

/** Takes the bytes that go to the host. Finished when the daemon has confirmed the end. */
export class UploadStream extends Writable implements StreamEnd {
  readonly #procedure: string;
  #port: StreamPort | null = null;
  #confirmed: (() => void) | null = null;

  constructor(procedure: string) {
    super({ highWaterMark: PACKET_MAX_BYTES });
    this.#procedure = procedure;
    // It can fail before anything is written to it; `errored` keeps the reason for whoever writes.
    this.on("error", () => undefined);
  }

  opened(port: StreamPort): void {
    this.#port = port;
  }

  packet(status: number, body: Buffer): void {
    if (status === messageStatus.error) {
      this.#release();
      this.destroy(decodeError(this.#procedure, body));
      return;
    }
    if (status !== messageStatus.ok) return;
    this.#release();
    if (this.#confirmed === null)
      this.destroy(new Error(`the daemon ended ${this.#procedure} before we did`));
    else this.#confirmed();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const port = this.#port;
    if (port === null) done(new Error(`${this.#procedure} has no open stream`));
    else sendPackets(port, chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#confirmed = done;
    try {
      this.#port?.send(messageStatus.ok, NO_BYTES);
    } catch (error) {
      done(toError(error));
    }
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const failure = abandon(this.#port);
    this.#port = null;
    done(error ?? failure);
  }

  #release(): void {
    this.#port?.release();
    this.#port = null;
  }
}

/** Gives the bytes that come from the host. Ended when the daemon has said that they are complete. */
export class DownloadStream<Result> extends Readable implements StreamEnd {
  readonly #procedure: string;
  #port: StreamPort | null = null;
  #reply: Promise<Result> | null = null;

  constructor(procedure: string) {
    super({ highWaterMark: PACKET_MAX_BYTES });
    this.#procedure = procedure;
  }

  /** What the call answered, before the first byte. */
  get reply(): Promise<Result> {
    return this.#reply ?? Promise.reject(new Error(`${this.#procedure} was not sent`));
  }

  /** Ties the stream to its call: a call that fails destroys the stream. */
  follow(reply: Promise<Result>): void {
    this.#reply = reply;
    reply.catch((error: unknown) => this.destroy(toError(error)));
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
      this.push(null);
    } else if (body.length > 0) {
      if (!this.push(body)) this.#port?.setPaused(true);
    } else {
      this.#confirmEnd();
    }
  }

  override _read(): void {
    this.#port?.setPaused(false);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const failure = abandon(this.#port);
    this.#port = null;
    done(error ?? failure);
  }

  /** The daemon may still report a failure of its reading side: only its answer to this ends the stream. */
  #confirmEnd(): void {
    try {
      this.#port?.send(messageStatus.ok, NO_BYTES);
    } catch (error) {
      this.destroy(toError(error));
    }
  }

  #release(): void {
    this.#port?.release();
    this.#port = null;
  }
}

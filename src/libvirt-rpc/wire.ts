import type { Duplex } from "node:stream";
import { ConnectionError } from "./errors.ts";
import { decodeFrame, encodeFrameHead, FrameSplitter, type Header, type Message } from "./frame.ts";

/** How long an orderly end may take before the socket is cut. */
const END_GRACE_MS = 1_000;

/** What a Wire tells. `closed` comes once, and last. */
export interface WireListener {
  message(message: Message): void;
  /** Bytes came in, or bytes that waited went out: the peer lives. */
  alive(): void;
  drained(): void;
  closed(error: ConnectionError): void;
}

/** A socket that carries frames. Whatever goes wrong ends in one `closed`. */
export class Wire {
  readonly #socket: Duplex;
  readonly #listener: WireListener;
  readonly #splitter = new FrameSplitter();
  readonly #gone = Promise.withResolvers<undefined>();
  #error: ConnectionError | null = null;

  constructor(socket: Duplex, listener: WireListener) {
    this.#socket = socket;
    this.#listener = listener;
    socket.on("data", (chunk: Buffer) => {
      this.#receive(chunk);
    });
    socket.on("drain", () => {
      listener.alive();
      listener.drained();
    });
    socket.on("error", (error) => {
      this.fail(toConnectionError(error));
    });
    socket.on("close", () => {
      this.fail(new ConnectionError("closed", "the daemon closed the connection"));
      this.#gone.resolve(undefined);
    });
  }

  /** True while the socket holds more than it should, because the peer does not read. */
  get congested(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Resolves when the socket is gone. */
  get gone(): Promise<undefined> {
    return this.#gone.promise;
  }

  send(frame: Buffer): void {
    if (this.#error === null) this.#socket.write(frame);
  }

  /** Writes a packet of bulk data without copying it. */
  sendBulk(header: Header, body: Uint8Array): void {
    if (this.#error !== null) return;
    this.#socket.cork();
    this.#socket.write(encodeFrameHead(header, body.length));
    if (body.length > 0) this.#socket.write(body);
    this.#socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (this.#error === null) this.#socket.resume();
  }

  /** Cuts the connection for a reason. Later reasons are ignored. */
  fail(error: ConnectionError): void {
    if (this.#error !== null) return;
    this.#error = error;
    this.#socket.destroy();
    this.#listener.closed(error);
  }

  /** Sends a last frame and ends in order, or without it when the peer does not read. */
  end(lastFrame: Buffer, error: ConnectionError): void {
    if (this.#error !== null) return;
    this.#error = error;
    const cut = setTimeout(() => this.#socket.destroy(), END_GRACE_MS);
    this.#socket.once("close", () => {
      clearTimeout(cut);
    });
    this.#socket.end(lastFrame, () => this.#socket.destroy());
    // A paused socket would never come to its end.
    this.#socket.resume();
    this.#listener.closed(error);
  }

  #receive(chunk: Buffer): void {
    if (this.#error !== null) return;
    this.#listener.alive();
    try {
      for (const frame of this.#splitter.push(chunk)) this.#listener.message(decodeFrame(frame));
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.fail(
        new ConnectionError("protocol", `the peer does not speak libvirt's protocol: ${detail}`, {
          cause: error,
        }),
      );
    }
  }
}

function toConnectionError(error: Error): ConnectionError {
  if (error instanceof ConnectionError) return error;
  return new ConnectionError("closed", `the connection to the daemon broke: ${error.message}`, {
    cause: error,
  });
}

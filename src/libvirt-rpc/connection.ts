import { type Duplex, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Calls, toError } from "./calls.ts";
import { DuplexStream } from "./duplex-stream.ts";
import { ConnectionError } from "./errors.ts";
import { encodeFrame, type Message, messageStatus, messageType } from "./frame.ts";
import { Keepalive } from "./keepalive.ts";
import { Listeners } from "./listeners.ts";
import { OpenStreams } from "./open-streams.ts";
import type { CallOptions, KeepaliveOptions } from "./options.ts";
import { KEEPALIVE_PROGRAM, type Procedure, REMOTE_PROGRAM } from "./procedure.ts";
import { connectClose } from "./procedures/connect.ts";
import { type DomainEvent, decodeDomainEvent } from "./procedures/events.ts";
import { DownloadStream, UploadStream } from "./streams.ts";
import { Wire } from "./wire.ts";
import { XdrError } from "./xdr.ts";

const PING = 1;
const PONG = 2;

export interface ConnectionSettings {
  readonly callTimeoutMs: number;
  readonly maxCallsInFlight: number;
  readonly keepalive: KeepaliveOptions;
}

/** One connection to one daemon. It never comes back: see LibvirtSession for one that does. */
export class LibvirtConnection {
  readonly #settings: ConnectionSettings;
  readonly #wire: Wire;
  readonly #calls: Calls;
  readonly #keepalive: Keepalive;
  readonly #streams: OpenStreams;
  readonly #events = new Listeners<[DomainEvent]>();
  readonly #closes = new Listeners<[ConnectionError]>();
  #closedBy: ConnectionError | null = null;

  /** @param socket connected, and past what its transport needs before the protocol starts */
  constructor(socket: Duplex, settings: ConnectionSettings) {
    this.#settings = settings;
    this.#wire = new Wire(socket, {
      message: (message) => {
        this.#receive(message);
      },
      alive: () => {
        this.#keepalive.alive();
      },
      drained: () => {
        this.#drained();
      },
      closed: (error) => {
        this.#closed(error);
      },
    });
    this.#streams = new OpenStreams(this.#wire, (paused) => {
      this.#keepalive.suspend(paused);
    });
    this.#calls = new Calls(
      settings.maxCallsInFlight,
      () => !this.#wire.congested,
      (frame) => {
        this.#wire.send(frame);
      },
    );
    this.#keepalive = new Keepalive(
      settings.keepalive,
      () => {
        this.#sendKeepalive(PING);
      },
      () => {
        const silentMs = settings.keepalive.intervalMs * settings.keepalive.count;
        this.#wire.fail(new ConnectionError("timeout", `the daemon has been silent for ${silentMs} ms`));
      },
    );
  }

  get closed(): boolean {
    return this.#closedBy !== null;
  }

  /**
   * Calls a procedure. Rejects with LibvirtError, CallTimeoutError, ConnectionError, the signal's
   * reason, XdrError for arguments the protocol cannot carry, or what `beforeSend` threw.
   */
  call<Args, Result>(
    procedure: Procedure<Args, Result>,
    args: Args,
    options: CallOptions = {},
  ): Promise<Result> {
    return this.#calls.submit(procedure, args, this.#withTimeout(options));
  }

  /**
   * Sends `source` to the host through a procedure with a stream, and resolves when the daemon has
   * confirmed the end. `timeoutMs` bounds the opening call only; `beforeSend` runs before every packet.
   * A failure on either side destroys `source`. What has arrived until then stays on the host.
   */
  async upload<Args>(
    procedure: Procedure<Args, unknown>,
    args: Args,
    source: Readable | AsyncIterable<Uint8Array>,
    options: CallOptions = {},
  ): Promise<void> {
    const { signal, beforeSend } = options;
    const stream = new UploadStream(procedure.name);
    try {
      await this.#calls.submit(procedure, args, this.#withTimeout(options), (serial) => {
        this.#streams.open(stream, procedure, serial, beforeSend);
      });
      await pipeline(source, stream, signal === undefined ? {} : { signal });
    } catch (error) {
      const reason = signal?.aborted === true ? toError(signal.reason) : (stream.errored ?? toError(error));
      stream.destroy();
      if (isReadable(source)) source.destroy();
      throw reason;
    }
  }

  /**
   * Receives from the host through a procedure with a stream. The stream fails with what `call` would
   * reject with; destroying it tells the daemon to stop. `timeoutMs` bounds the opening call only.
   * Nothing else is read from this connection while the consumer is slow: give it one of its own.
   */
  download<Args, Result>(
    procedure: Procedure<Args, Result>,
    args: Args,
    options: CallOptions = {},
  ): DownloadStream<Result> {
    const { signal, beforeSend } = options;
    const stream = new DownloadStream<Result>(procedure.name);
    const reply = this.#calls.submit(procedure, args, this.#withTimeout(options), (serial) => {
      if (!stream.destroyed) this.#streams.open(stream, procedure, serial, beforeSend);
    });
    stream.follow(reply);
    const abort = (): void => {
      stream.destroy(toError(signal?.reason));
    };
    signal?.addEventListener("abort", abort, { once: true });
    stream.once("close", () => signal?.removeEventListener("abort", abort));
    return stream;
  }

  /**
   * Opens a procedure whose stream goes both ways, and resolves when the daemon has said that it is open. `timeoutMs`
   * and `signal` bound the opening only. Nothing else is read from this connection while the reader is slow: give the
   * stream one of its own.
   */
  async duplex<Args>(
    procedure: Procedure<Args, unknown>,
    args: Args,
    options: CallOptions = {},
  ): Promise<Duplex> {
    const stream = new DuplexStream(procedure.name);
    try {
      await this.#calls.submit(procedure, args, this.#withTimeout(options), (serial) => {
        this.#streams.open(stream, procedure, serial, options.beforeSend);
      });
      // Its end may have come together with the reply.
      if (stream.errored !== null) throw stream.errored;
      return stream;
    } catch (error) {
      stream.destroy();
      throw error;
    }
  }

  /** Events that were registered for with connectDomainEventCallbackRegisterAny. Returns the way to stop. */
  onEvent(listener: (event: DomainEvent) => void): () => void {
    return this.#events.add(listener);
  }

  /** Called once, when the connection has ended for whatever reason. Returns the way to stop. */
  onClose(listener: (error: ConnectionError) => void): () => void {
    return this.#closes.add(listener);
  }

  /** Ends the connection; calls under way are rejected. Resolves when the socket is gone. */
  async close(): Promise<void> {
    const { program, number } = connectClose;
    const header = {
      program,
      procedure: number,
      type: messageType.call,
      serial: 0,
      status: messageStatus.ok,
    };
    this.#wire.end(encodeFrame(header), new ConnectionError("closed", "the connection was closed by us"));
    await this.#wire.gone;
  }

  #withTimeout(options: CallOptions): CallOptions & { readonly timeoutMs: number } {
    return { ...options, timeoutMs: options.timeoutMs ?? this.#settings.callTimeoutMs };
  }

  #receive(message: Message): void {
    if (message.program === KEEPALIVE_PROGRAM) {
      if (message.procedure === PING) this.#sendKeepalive(PONG);
      return;
    }
    switch (message.type) {
      case messageType.reply:
        this.#calls.settle(message);
        return;
      case messageType.event:
        this.#receiveEvent(message);
        return;
      case messageType.stream:
        this.#streams.receive(message);
        return;
      default:
        throw new XdrError(`a message of type ${message.type} is not for a client`);
    }
  }

  #receiveEvent(message: Message): void {
    if (message.program !== REMOTE_PROGRAM) return;
    const event = decodeDomainEvent(message.procedure, message.body);
    if (event !== null) this.#events.emit(event);
  }

  #drained(): void {
    this.#streams.drained();
    this.#calls.pump();
  }

  #sendKeepalive(procedure: number): void {
    const header = {
      program: KEEPALIVE_PROGRAM,
      procedure,
      type: messageType.event,
      serial: 0,
      status: messageStatus.ok,
    };
    this.#wire.send(encodeFrame(header));
  }

  #closed(error: ConnectionError): void {
    this.#closedBy = error;
    this.#keepalive.stop();
    this.#calls.close(error);
    this.#streams.close(error);
    this.#closes.emit(error);
    this.#events.clear();
    this.#closes.clear();
  }
}

function isReadable(source: Readable | AsyncIterable<Uint8Array>): source is Readable {
  return "destroy" in source;
}

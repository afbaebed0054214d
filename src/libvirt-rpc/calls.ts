import { CallTimeoutError, ConnectionError, LibvirtError } from "./errors.ts";
import { encodeFrame, type Message, messageStatus, messageType } from "./frame.ts";
import type { CallOptions } from "./options.ts";
import type { Procedure } from "./procedure.ts";
import { remoteError } from "./structures.ts";
import { XdrError, XdrReader } from "./xdr.ts";

const SERIAL_MAX = 0xffff_ffff;
/** Node fires a timer beyond this at once. */
const TIMER_MAX_MS = 0x7fff_ffff;

/** One call, from its submission until it is answered or given up. */
interface Call {
  readonly serial: number;
  readonly frame: Buffer;
  readonly options: CallOptions;
  readonly onSent: ((serial: number) => void) | undefined;
  settle(message: Message): void;
  fail(error: unknown): void;
}

/** Reads the error of a failed reply or stream packet. */
export function decodeError(procedure: string, body: Buffer): LibvirtError {
  const r = new XdrReader(body);
  const error = remoteError.read(r);
  r.requireEnd();
  return new LibvirtError(procedure, error);
}

function decodeReply<R>(procedure: Procedure<never, R>, message: Message): R {
  if (message.status === messageStatus.error) throw decodeError(procedure.name, message.body);
  if (message.status !== messageStatus.ok) throw new XdrError(`${message.status} is no status of a reply`);
  const r = new XdrReader(message.body);
  const result = procedure.decode(r);
  r.requireEnd();
  return result;
}

/**
 * The calls of one connection: those that wait for a slot, in order, and those that wait for a reply.
 * A call that is given up frees its slot at once although the daemon may still be at it: a few calls
 * that never return must not stop all others.
 */
export class Calls {
  readonly #maxInFlight: number;
  readonly #ready: () => boolean;
  readonly #send: (frame: Buffer) => void;
  readonly #queue = new Set<Call>();
  readonly #inFlight = new Map<number, Call>();
  #lastSerial = 0;
  #closed: Error | null = null;

  /** @param ready false while the peer does not read: what is written then would go out unchecked later */
  constructor(maxInFlight: number, ready: () => boolean, send: (frame: Buffer) => void) {
    this.#maxInFlight = maxInFlight;
    this.#ready = ready;
    this.#send = send;
  }

  /** @param onSent called with the serial right after the write, before any reply can come */
  submit<A, R>(
    procedure: Procedure<A, R>,
    args: A,
    options: CallOptions & { readonly timeoutMs: number },
    onSent?: (serial: number) => void,
  ): Promise<R> {
    const { signal, timeoutMs } = options;
    if (this.#closed !== null) return Promise.reject(this.#closed);
    if (signal?.aborted === true) return Promise.reject(toError(signal.reason));
    const serial = this.#nextSerial();
    let frame: Buffer;
    try {
      frame = encodeCall(procedure, args, serial);
    } catch (error) {
      return Promise.reject(toError(error));
    }
    const { promise, resolve, reject } = Promise.withResolvers<R>();
    const forget = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#queue.delete(call);
      this.#inFlight.delete(serial);
      this.pump();
    };
    const call: Call = {
      serial,
      frame,
      options,
      onSent,
      settle: (message) => {
        try {
          resolve(decodeReply(procedure, message));
        } catch (error) {
          reject(error instanceof LibvirtError ? error : unreadable(procedure.name, error));
        }
        forget();
      },
      fail: (error) => {
        reject(toError(error));
        forget();
      },
    };
    const abort = (): void => {
      call.fail(signal?.reason);
    };
    const timer = setTimeout(
      () => {
        call.fail(new CallTimeoutError(procedure.name, timeoutMs));
      },
      Math.min(timeoutMs, TIMER_MAX_MS),
    );
    signal?.addEventListener("abort", abort, { once: true });
    this.#queue.add(call);
    this.pump();
    return promise;
  }

  /** Hands a reply to its call. A reply nobody waits for any more is dropped. */
  settle(message: Message): void {
    this.#inFlight.get(message.serial)?.settle(message);
  }

  /** Sends what waits, as far as there are slots. */
  pump(): void {
    for (const call of this.#queue) {
      if (this.#closed !== null || this.#inFlight.size >= this.#maxInFlight || !this.#ready()) return;
      this.#queue.delete(call);
      try {
        // One signal may end several calls: the first to hear of it makes room for the next.
        call.options.signal?.throwIfAborted();
        call.options.beforeSend?.();
      } catch (error) {
        call.fail(error);
        continue;
      }
      this.#inFlight.set(call.serial, call);
      this.#send(call.frame);
      call.onSent?.(call.serial);
    }
  }

  /** Rejects every call there is and will be. */
  close(error: Error): void {
    this.#closed = error;
    for (const call of [...this.#inFlight.values(), ...this.#queue]) call.fail(error);
  }

  #nextSerial(): number {
    do {
      this.#lastSerial = this.#lastSerial === SERIAL_MAX ? 1 : this.#lastSerial + 1;
    } while (this.#inFlight.has(this.#lastSerial));
    return this.#lastSerial;
  }
}

function encodeCall<A>(procedure: Procedure<A, unknown>, args: A, serial: number): Buffer {
  const { program, number } = procedure;
  const header = { program, procedure: number, type: messageType.call, serial, status: messageStatus.ok };
  return encodeFrame(header, (w) => {
    procedure.encode(w, args);
  });
}

function unreadable(procedure: string, cause: unknown): ConnectionError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new ConnectionError("protocol", `the reply to ${procedure} cannot be read: ${detail}`, { cause });
}

/** An abort's reason may be anything; what we reject with is an Error, and the reason itself if it is one. */
export function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error("the call was aborted", { cause: reason });
}

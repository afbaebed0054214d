/**
 * Frames: u32 length (itself included), then program, version, procedure, type, serial and status,
 * then the body. From libvirt's src/rpc/virnetprotocol.x.
 */
import { XdrError, XdrReader, XdrWriter } from "./xdr.ts";

const LENGTH_BYTES = 4;
const HEADER_BYTES = 28;
const PROTOCOL_VERSION = 1;
/** VIR_NET_MESSAGE_MAX (32 MiB) and the length word, which it does not count. */
export const FRAME_MAX_BYTES = 33_554_432 + LENGTH_BYTES;

export const messageType = { call: 0, reply: 1, event: 2, stream: 3 } as const;
export const messageStatus = { ok: 0, error: 1, continue: 2 } as const;

export interface Header {
  readonly program: number;
  readonly procedure: number;
  readonly type: number;
  /** Chosen by the caller, repeated in the reply and in stream packets; 0 in events. */
  readonly serial: number;
  readonly status: number;
}

export interface Message extends Header {
  readonly body: Buffer;
}

function writeHeader(w: XdrWriter, header: Header): void {
  w.uint(0);
  w.uint(header.program);
  w.uint(PROTOCOL_VERSION);
  w.int(header.procedure);
  w.int(header.type);
  w.uint(header.serial);
  w.int(header.status);
}

function withLength(frame: Buffer, length: number): Buffer {
  if (length > FRAME_MAX_BYTES) throw new XdrError(`a message of ${length} bytes exceeds ${FRAME_MAX_BYTES}`);
  frame.writeUInt32BE(length, 0);
  return frame;
}

/** A whole frame. */
export function encodeFrame(header: Header, writeBody?: (w: XdrWriter) => void): Buffer {
  const w = new XdrWriter();
  writeHeader(w, header);
  writeBody?.(w);
  return withLength(w.bytes(), w.length);
}

/** What stands before a body of `bodyBytes` that is written apart, so that bulk data is not copied. */
export function encodeFrameHead(header: Header, bodyBytes: number): Buffer {
  const w = new XdrWriter(HEADER_BYTES);
  writeHeader(w, header);
  return withLength(w.bytes(), w.length + bodyBytes);
}

/** Reads a whole frame. Throws XdrError on another version of the protocol. */
export function decodeFrame(frame: Buffer): Message {
  const r = new XdrReader(frame, LENGTH_BYTES);
  const program = r.uint();
  const version = r.uint();
  if (version !== PROTOCOL_VERSION) throw new XdrError(`version ${version} of the protocol is unknown`);
  return { program, procedure: r.int(), type: r.int(), serial: r.uint(), status: r.int(), body: r.rest() };
}

/**
 * Cuts a byte stream into frames. Each byte is copied at most once, and a frame that arrives whole
 * is not copied at all.
 */
export class FrameSplitter {
  readonly #lengthWord = Buffer.alloc(LENGTH_BYTES);
  #frame: Buffer | null = null;
  /** Bytes had of the frame, its length word included. */
  #filled = 0;

  /** The frames that `chunk` completes. Throws XdrError on a length that no frame has. */
  push(chunk: Buffer): Buffer[] {
    const frames: Buffer[] = [];
    let at = 0;
    while (at < chunk.length) {
      const whole = this.#filled === 0 ? wholeFrameAt(chunk, at) : null;
      if (whole !== null) {
        frames.push(whole);
        at += whole.length;
        continue;
      }
      at += this.#fill(chunk, at);
      const frame = this.#frame;
      if (frame !== null && this.#filled === frame.length) {
        frames.push(frame);
        this.#frame = null;
        this.#filled = 0;
      }
    }
    return frames;
  }

  /** Takes what it can of the chunk from `at` on, and returns how much that was. */
  #fill(chunk: Buffer, at: number): number {
    const target = this.#frame ?? this.#lengthWord;
    const copied = chunk.copy(target, this.#filled, at);
    this.#filled += copied;
    if (this.#frame === null && this.#filled === LENGTH_BYTES) {
      this.#frame = Buffer.allocUnsafe(checkLength(this.#lengthWord.readUInt32BE(0)));
      this.#lengthWord.copy(this.#frame);
    }
    return copied;
  }
}

function checkLength(length: number): number {
  if (length < HEADER_BYTES || length > FRAME_MAX_BYTES)
    throw new XdrError(`no frame is ${length} bytes long`);
  return length;
}

function wholeFrameAt(chunk: Buffer, at: number): Buffer | null {
  if (chunk.length - at < LENGTH_BYTES) return null;
  const length = checkLength(chunk.readUInt32BE(at));
  return chunk.length - at < length ? null : chunk.subarray(at, at + length);
}

/**
 * XDR (RFC 4506) as libvirt speaks it: big endian, everything padded to four bytes, strings and
 * arrays with a declared upper bound. A value that does not fit is refused, never wrapped or cut.
 */

/** Bytes that are no valid message, or a value that cannot be written as one. */
export class XdrError extends Error {
  override readonly name = "XdrError";
}

const I32_MIN = -0x8000_0000;
const I32_MAX = 0x7fff_ffff;
const U32_MAX = 0xffff_ffff;
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;
const U64_MAX = 2n ** 64n - 1n;
const UUID_PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

function paddingOf(length: number): number {
  return (4 - (length & 3)) & 3;
}

function requireWithin(value: number, min: number, max: number, type: string): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new XdrError(`${value} is no ${type}`);
  }
}

function requireBigWithin(value: bigint, min: bigint, max: bigint, type: string): void {
  if (value < min || value > max) throw new XdrError(`${value.toString()} is no ${type}`);
}

/** Appends values to a buffer that grows by doubling. */
export class XdrWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** What has been written. The buffer is shared: take it when done. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  int(value: number): void {
    requireWithin(value, I32_MIN, I32_MAX, "32-bit integer");
    const at = this.#grow(4);
    this.#buffer.writeInt32BE(value, at);
  }

  uint(value: number): void {
    requireWithin(value, 0, U32_MAX, "unsigned 32-bit integer");
    const at = this.#grow(4);
    this.#buffer.writeUInt32BE(value, at);
  }

  hyper(value: bigint): void {
    requireBigWithin(value, I64_MIN, I64_MAX, "64-bit integer");
    const at = this.#grow(8);
    this.#buffer.writeBigInt64BE(value, at);
  }

  uhyper(value: bigint): void {
    requireBigWithin(value, 0n, U64_MAX, "unsigned 64-bit integer");
    const at = this.#grow(8);
    this.#buffer.writeBigUInt64BE(value, at);
  }

  double(value: number): void {
    const at = this.#grow(8);
    this.#buffer.writeDoubleBE(value, at);
  }

  /** @param maxBytes the protocol's bound, in bytes of UTF-8 */
  string(value: string, maxBytes: number): void {
    const length = Buffer.byteLength(value);
    if (length > maxBytes) throw new XdrError(`a string of ${length} bytes exceeds ${maxBytes}`);
    // The daemon reads C strings: it would silently take what stands before the NUL.
    if (value.includes("\0")) throw new XdrError("a string contains a NUL character");
    this.uint(length);
    const padding = paddingOf(length);
    const at = this.#grow(length + padding);
    this.#buffer.write(value, at, "utf8");
    this.#buffer.fill(0, at + length, at + length + padding);
  }

  uuid(value: string): void {
    if (!UUID_PATTERN.test(value)) throw new XdrError(`"${value}" is no UUID`);
    const at = this.#grow(16);
    this.#buffer.write(value.replaceAll("-", ""), at, "hex");
  }

  /** Bytes as they are, without length or padding. */
  raw(value: Uint8Array): void {
    const at = this.#grow(value.length);
    this.#buffer.set(value, at);
  }

  /** Makes room and returns where. Take it before `#buffer`, which may be another one afterwards. */
  #grow(bytes: number): number {
    const at = this.#length;
    const needed = at + bytes;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, needed));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    this.#length = needed;
    return at;
  }
}

/** Reads values off a buffer; a read past its end throws XdrError. */
export class XdrReader {
  readonly #buffer: Buffer;
  #position: number;

  constructor(buffer: Buffer, position = 0) {
    this.#buffer = buffer;
    this.#position = position;
  }

  get remaining(): number {
    return this.#buffer.length - this.#position;
  }

  int(): number {
    return this.#buffer.readInt32BE(this.#take(4));
  }

  uint(): number {
    return this.#buffer.readUInt32BE(this.#take(4));
  }

  hyper(): bigint {
    return this.#buffer.readBigInt64BE(this.#take(8));
  }

  uhyper(): bigint {
    return this.#buffer.readBigUInt64BE(this.#take(8));
  }

  double(): number {
    return this.#buffer.readDoubleBE(this.#take(8));
  }

  /** Invalid UTF-8 becomes U+FFFD: a file with an odd name must not make its whole pool unreadable. */
  string(maxBytes: number): string {
    const length = this.uint();
    if (length > maxBytes) throw new XdrError(`a string of ${length} bytes exceeds ${maxBytes}`);
    const at = this.#take(length + paddingOf(length));
    return this.#buffer.toString("utf8", at, at + length);
  }

  uuid(): string {
    const at = this.#take(16);
    const hex = this.#buffer.toString("hex", at, at + 16);
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }

  /** All that is left, without a copy. */
  rest(): Buffer {
    const at = this.#take(this.remaining);
    return this.#buffer.subarray(at);
  }

  /** A message with bytes left over was not what we took it for. */
  requireEnd(): void {
    if (this.remaining > 0) throw new XdrError(`${this.remaining} bytes follow the end of the message`);
  }

  #take(bytes: number): number {
    const at = this.#position;
    if (bytes > this.remaining) throw new XdrError("the message is shorter than its content");
    this.#position = at + bytes;
    return at;
  }
}

import type { Duplex } from "node:stream";

/** As a server begins; RFC 6143, section 7.1.1. */
const VERSION = "RFB 003.008\n";
/** Section 7.1.2: a server that asks for nothing. */
const SECURITY_NONE = 1;
const OK = 0;
/** Of ServerInit: width, height, pixel format and the length of the name. */
const SERVER_INIT_BYTES = 24;
const NAME_LENGTH_OFFSET = 20;
const NAME_MAX_BYTES = 4096;

/**
 * Greets a VNC server as a further viewer, reads its desktop's name and leaves: the stream is destroyed. Rejects where
 * it does not speak RFB 3.8 without a password, ends too early or the signal aborts.
 */
export async function readDesktopName(stream: Duplex, signal: AbortSignal): Promise<string> {
  const abort = (): void => {
    stream.destroy(new Error("given up", { cause: signal.reason }));
  };
  signal.addEventListener("abort", abort, { once: true });
  const bytes = new ByteReader(stream);
  try {
    if ((await bytes.take(VERSION.length)).toString("latin1") !== VERSION)
      throw new Error("it speaks no RFB 3.8");
    stream.write(VERSION);
    const types = await bytes.take((await bytes.take(1)).readUInt8());
    if (!types.includes(SECURITY_NONE)) throw new Error("it asks for a password");
    stream.write(Buffer.from([SECURITY_NONE]));
    if ((await bytes.take(4)).readUInt32BE() !== OK) throw new Error("it refused us");
    // Shared: whoever looks at the screen already goes on looking.
    stream.write(Buffer.from([1]));
    const length = (await bytes.take(SERVER_INIT_BYTES)).readUInt32BE(NAME_LENGTH_OFFSET);
    if (length > NAME_MAX_BYTES) throw new Error("its name is too long");
    return (await bytes.take(length)).toString("utf8");
  } finally {
    signal.removeEventListener("abort", abort);
    stream.on("error", () => undefined).destroy();
  }
}

/** Takes bytes off a stream by number. */
class ByteReader {
  readonly #chunks: AsyncIterator<Buffer, undefined>;
  #held: Buffer = Buffer.alloc(0);

  constructor(stream: Duplex) {
    this.#chunks = (stream as AsyncIterable<Buffer, undefined>)[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    while (this.#held.length < count) {
      const next = await this.#chunks.next();
      if (next.done === true) throw new Error("it ended in the middle of its greeting");
      this.#held = Buffer.concat([this.#held, next.value]);
    }
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }
}

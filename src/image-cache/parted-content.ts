import { createHash } from "node:crypto";
import { DroverError } from "../lib/errors.ts";

const EMPTY = new Uint8Array(0);

/**
 * A content that is sent in parts, read once from its beginning. The last part does not come to its end unless all that
 * was read has the digest that the content is named by: what the store holds damaged never counts as arrived.
 */
export class PartedContent {
  readonly #iterator: AsyncIterator<Uint8Array>;
  readonly #sha256: string;
  readonly #sizeBytes: number;
  readonly #hash = createHash("sha256");
  #rest: Uint8Array = EMPTY;
  #taken = 0;

  constructor(content: AsyncIterable<Uint8Array>, sha256: string, sizeBytes: number) {
    this.#iterator = content[Symbol.asyncIterator]();
    this.#sha256 = sha256;
    this.#sizeBytes = sizeBytes;
  }

  /** Reads over what has arrived already. */
  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) left -= (await this.#take(left)).byteLength;
  }

  /** The next so many bytes. Throws DroverError `internal` where the content is not what it should be. */
  async *part(bytes: number): AsyncGenerator<Uint8Array> {
    for (let left = bytes; left > 0; ) {
      const chunk = await this.#take(left);
      left -= chunk.byteLength;
      if (this.#taken === this.#sizeBytes) this.#requireDigest();
      yield chunk;
    }
  }

  /** Gives the content back, however far it was read. */
  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #take(most: number): Promise<Uint8Array> {
    if (this.#rest.byteLength === 0) {
      const next = await this.#iterator.next();
      if (next.done === true) throw damaged(`ends after ${this.#taken} of ${this.#sizeBytes} bytes`);
      this.#rest = next.value;
    }
    const chunk = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(chunk.byteLength);
    this.#hash.update(chunk);
    this.#taken += chunk.byteLength;
    return chunk;
  }

  #requireDigest(): void {
    const found = this.#hash.digest("hex");
    if (found !== this.#sha256) throw damaged(`has the SHA-256 ${found} instead of ${this.#sha256}`);
  }
}

function damaged(what: string): DroverError {
  return new DroverError(
    "internal",
    `The image's file in the image store is damaged: it ${what}. Delete the image and upload it once more.`,
    { retry: "never" },
  );
}

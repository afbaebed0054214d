import { describe, expect, it } from "vitest";
import { exactly } from "../../../src/hypervisors/upload-source.ts";

async function* bytes(...sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (const size of sizes) yield new Uint8Array(size);
}

async function countBytes(source: AsyncIterable<Uint8Array>): Promise<number> {
  let total = 0;
  for await (const chunk of source) total += chunk.byteLength;
  return total;
}

const never = new AbortController().signal;

describe("the source of an upload", () => {
  it("is passed on whole", async () => {
    expect(await countBytes(exactly(bytes(3, 0, 4), 7, never))).toBe(7);
    expect(await countBytes(exactly(bytes(), 0, never))).toBe(0);
  });

  it.each([6, 8])("that gives 7 bytes and not %i fails", async (announced) => {
    await expect(countBytes(exactly(bytes(3, 4), announced, never))).rejects.toMatchObject({
      reason: "invalid-spec",
    });
  });

  it("that breaks fails with its own error", async () => {
    const broken = (async function* () {
      yield new Uint8Array(1);
      throw new Error("the disk is gone");
    })();
    await expect(countBytes(exactly(broken, 2, never))).rejects.toThrow("the disk is gone");
  });

  it("that stalls ends with the signal, and is told so", async () => {
    const stop = new AbortController();
    const stalled = Promise.withResolvers<undefined>();
    let isTold = false;
    const source: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          stop.abort(new Error("given up"));
          await stalled.promise;
          return { done: true, value: undefined };
        },
        return: () => {
          isTold = true;
          return Promise.reject(new Error("nobody hears this"));
        },
      }),
    };
    await expect(countBytes(exactly(source, 1, stop.signal))).rejects.toThrow("given up");
    expect(isTold).toBe(true);
  });

  it("is not begun when the signal has ended", async () => {
    const ended = AbortSignal.abort(new Error("too late"));
    await expect(countBytes(exactly(bytes(1), 1, ended))).rejects.toThrow("too late");
  });

  it("is let go when its reader stops early", async () => {
    const seen: number[] = [];
    const source = (async function* () {
      try {
        yield new Uint8Array(1);
        yield new Uint8Array(1);
      } finally {
        seen.push(1);
      }
    })();
    for await (const _chunk of exactly(source, 2, never)) break;
    expect(seen).toEqual([1]);
  });
});

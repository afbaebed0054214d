import { crc32, inflateSync } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { encodePng, isPng } from "../../src/lib/png.ts";

/** The chunks of a PNG, their checksums checked. */
function chunksOf(png: Buffer): { readonly type: string; readonly data: Buffer }[] {
  const chunks = [];
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const body = png.subarray(at + 4, at + 8 + length);
    expect(png.readUInt32BE(at + 8 + length)).toBe(crc32(body));
    chunks.push({ type: body.toString("latin1", 0, 4), data: body.subarray(4) });
    at += 12 + length;
  }
  return chunks;
}

test("a PNG holds every pixel of its picture", async () => {
  const size = fc.record({ width: fc.integer({ min: 1, max: 20 }), height: fc.integer({ min: 1, max: 20 }) });
  await fc.assert(
    fc.asyncProperty(size, fc.integer(), async ({ width, height }, seed) => {
      const pixels = Uint8Array.from({ length: width * height * 3 }, (_, at) => (at * 31 + seed) % 256);
      const png = await encodePng({ width, height, pixels });
      expect(isPng(png)).toBe(true);
      const chunks = chunksOf(png);
      expect(chunks.map(({ type }) => type)).toEqual(["IHDR", "IDAT", "IEND"]);
      const header = chunks[0]?.data ?? Buffer.alloc(0);
      expect([header.readUInt32BE(0), header.readUInt32BE(4), ...header.subarray(8)]).toEqual([
        width,
        height,
        8,
        2,
        0,
        0,
        0,
      ]);
      const rows = inflateSync(chunks[1]?.data ?? Buffer.alloc(0));
      const read = Array.from({ length: height }, (_, y) => {
        expect(rows[y * (width * 3 + 1)]).toBe(0);
        return rows.subarray(y * (width * 3 + 1) + 1, (y + 1) * (width * 3 + 1));
      });
      expect(Buffer.concat(read).equals(pixels)).toBe(true);
    }),
  );
});

test.each([
  { width: 0, height: 1, pixels: 0 },
  { width: 2, height: 2, pixels: 11 },
  { width: 1.5, height: 2, pixels: 9 },
])("a picture that does not fit its size is refused", async ({ width, height, pixels }) => {
  await expect(encodePng({ width, height, pixels: new Uint8Array(pixels) })).rejects.toThrow(RangeError);
});

test("what is no PNG is not taken for one", () => {
  expect(isPng(Buffer.from("P6 1 1 255\n"))).toBe(false);
  expect(isPng(Buffer.alloc(0))).toBe(false);
});

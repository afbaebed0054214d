import { createHash, randomBytes } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { expect, it } from "vitest";
import { PartedContent } from "../../../src/image-cache/parted-content.ts";

const content = randomBytes(1000);
const sha256 = createHash("sha256").update(content).digest("hex");

async function* chunks(bytes: Buffer, size = 130): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const read = (source: AsyncIterable<Uint8Array>): Promise<Buffer> => buffer(source);

it("gives the content in parts of the sizes that are asked for", async () => {
  const parted = new PartedContent(chunks(content), sha256, content.length);
  const parts = [await read(parted.part(1)), await read(parted.part(500)), await read(parted.part(499))];
  expect(parts.map(({ length }) => length)).toEqual([1, 500, 499]);
  expect(Buffer.concat(parts).equals(content)).toBe(true);
});

it("reads over what has arrived, and still knows the whole digest", async () => {
  const parted = new PartedContent(chunks(content), sha256, content.length);
  await parted.skip(700);
  expect((await read(parted.part(300))).equals(content.subarray(700))).toBe(true);
});

it("does not come to its end where the content is another one", async () => {
  const other = Buffer.from(content);
  other.writeUInt8(other.readUInt8(3) ^ 1, 3);
  const parted = new PartedContent(chunks(other), sha256, content.length);
  const given: Uint8Array[] = [];
  const reading = (async () => {
    for await (const chunk of parted.part(1000)) given.push(chunk);
  })();
  await expect(reading).rejects.toThrow("damaged");
  expect(Buffer.concat(given).length).toBeLessThan(1000);
});

it("says that a content ends too early", async () => {
  const parted = new PartedContent(chunks(content.subarray(0, 900)), sha256, content.length);
  await expect(read(parted.part(1000))).rejects.toThrow("ends after 900 of 1000 bytes");
});

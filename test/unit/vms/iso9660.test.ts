import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type IsoFile, SECTOR_BYTES, writeIso } from "../../../src/vms/cloud-init/iso9660.ts";

interface Volume {
  readonly label: string;
  readonly sectors: number;
  readonly files: ReadonlyMap<string, Buffer>;
}

/** Reads one tree of an image by the standard alone, without sharing code with the writer. */
function readTree(image: Buffer, descriptorSector: number, decode: (bytes: Buffer) => string): Volume {
  const descriptor = image.subarray(descriptorSector * 2048, (descriptorSector + 1) * 2048);
  expect(descriptor.toString("latin1", 1, 6)).toBe("CD001");
  expect(both(descriptor, 128, 2)).toBe(2048);
  const root = recordAt(descriptor, 156);
  expect(root.flags).toBe(2);
  const directory = image.subarray(root.sector * 2048, root.sector * 2048 + root.size);
  const files = new Map<string, Buffer>();
  const ids: Buffer[] = [];
  for (let at = 0; at < directory.length && directory[at] !== 0; at += directory[at] ?? 0) {
    const record = recordAt(directory, at);
    if (record.flags === 2) {
      expect(record).toMatchObject({ sector: root.sector, size: root.size });
      continue;
    }
    ids.push(record.id);
    const start = record.sector * 2048;
    files.set(decode(record.id), image.subarray(start, start + record.size));
  }
  expect(ids.toSorted((one, other) => one.compare(other))).toEqual(ids);
  for (const [offset, read] of [
    [140, "readUInt32LE"],
    [148, "readUInt32BE"],
  ] as const) {
    const table = descriptor[read](offset) * 2048;
    expect([image[table], image[table + 1], image[table + 8]]).toEqual([1, 0, 0]);
    expect(image[read](table + 2)).toBe(root.sector);
  }
  expect(both(descriptor, 132, 4)).toBe(10);
  const label = decode(descriptor.subarray(40, 72)).trimEnd();
  return { label, sectors: both(descriptor, 80, 4), files };
}

/** A number that stands twice. */
function both(bytes: Buffer, offset: number, size: 2 | 4): number {
  const low = bytes.readUIntLE(offset, size);
  expect(bytes.readUIntBE(offset + size, size)).toBe(low);
  return low;
}

function recordAt(bytes: Buffer, at: number) {
  const length = bytes[at + 32] ?? 0;
  expect((bytes[at] ?? 0) % 2).toBe(0);
  return {
    sector: both(bytes, at + 2, 4),
    size: both(bytes, at + 10, 4),
    flags: bytes[at + 25],
    id: bytes.subarray(at + 33, at + 33 + length),
  };
}

const latin1 = (bytes: Buffer): string => bytes.toString("latin1");
const ucs2 = (bytes: Buffer): string => Buffer.from(bytes).swap16().toString("utf16le");

const file = fc.record({
  name: fc.stringMatching(/^[a-z][a-z0-9-]{0,29}$/),
  content: fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc
      .integer({ min: SECTOR_BYTES - 1, max: 3 * SECTOR_BYTES + 1 })
      .map((size) => new Uint8Array(size).fill(7)),
  ),
});
const someFiles = fc.uniqueArray(file, { maxLength: 16, selector: ({ name }) => name });

describe("an ISO image", () => {
  it("has every file with its content in both trees, whole sectors, and nothing else", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z0-9_]{1,16}$/), someFiles, (label, files) => {
        const image = Buffer.from(writeIso(label, files));
        const wanted = files.map(({ name, content }) => [name, Buffer.from(content)] as const);
        expect(image.length % SECTOR_BYTES).toBe(0);
        const joliet = readTree(image, 17, ucs2);
        expect(joliet).toMatchObject({ label, sectors: image.length / SECTOR_BYTES });
        expect(joliet.files).toEqual(new Map(wanted));
        const primary = readTree(image, 16, latin1);
        expect(primary).toMatchObject({ label, sectors: image.length / SECTOR_BYTES });
        expect(primary.files).toEqual(
          new Map(
            wanted.map(([name, content]) => [`${name.toUpperCase().replaceAll("-", "_")}.;1`, content]),
          ),
        );
        expect([image[16 * 2048], image[17 * 2048], image[18 * 2048]]).toEqual([1, 2, 255]);
        expect(image.toString("latin1", 17 * 2048 + 88, 17 * 2048 + 91)).toBe("%/E");
      }),
    );
  });

  it("has files that do not overlap, whatever their sizes", () => {
    fc.assert(
      fc.property(someFiles, (files) => {
        const marked = files.map(
          ({ name, content }, index): IsoFile => ({
            name,
            content: new Uint8Array(content.length).fill(index + 1),
          }),
        );
        const image = Buffer.from(writeIso("cidata", marked));
        for (const [name, content] of readTree(image, 17, ucs2).files)
          expect(new Set(content)).toEqual(new Set(marked.find((one) => one.name === name)?.content));
      }),
    );
  });

  it("is the same for the same files", () => {
    const files = [{ name: "meta-data", content: Buffer.from("x") }];
    expect(Buffer.compare(writeIso("cidata", files), writeIso("cidata", files))).toBe(0);
  });

  it.each([
    ["a way out of it", [{ name: "../../x" }]],
    ["upper case", [{ name: "X" }]],
    ["no name", [{ name: "" }]],
    ["a name too long", [{ name: "x".repeat(31) }]],
    ["one name twice", [{ name: "x" }, { name: "x" }]],
    ["too many", Array.from({ length: 17 }, (_, index) => ({ name: `x${index}` }))],
  ])("is not made of files with %s", (_what, names) => {
    const files = names.map(({ name }) => ({ name, content: new Uint8Array(1) }));
    expect(() => writeIso("cidata", files)).toThrow(RangeError);
  });

  it.each(["", "a label", "x".repeat(17), "ü"])("does not have the label %j", (label) => {
    expect(() => writeIso(label, [])).toThrow(RangeError);
  });
});

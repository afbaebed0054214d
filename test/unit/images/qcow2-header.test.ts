import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseQcow2Header, qcow2Truncation } from "../../../src/images/qcow2-header.ts";
import { qcow2Head } from "./qcow2-sample.ts";

function reasonOf(head: Uint8Array): string {
  const result = parseQcow2Header(head);
  return result.kind === "refused" ? result.reason : "accepted";
}

describe("parseQcow2Header", () => {
  it.each([2, 3] as const)("reads a plain header of version %i", (version) => {
    const result = parseQcow2Header(qcow2Head({ version }));
    expect(result).toEqual({
      kind: "header",
      header: {
        version,
        virtualSizeBytes: 10 * 2 ** 30,
        clusterSizeBytes: 65_536,
        tablesEndBytes: 0x30_000 + 20 * 8,
      },
    });
  });

  it.each([
    ["another version", { version: 4 }, /version 4/],
    ["a backing file", { backingOffset: 512n, backingLength: 11 }, /backing file/],
    ["a backing file's name without its place", { backingLength: 11 }, /backing file/],
    ["encryption", { cryptMethod: 1 }, /encrypted/],
    ["LUKS encryption", { cryptMethod: 2 }, /encrypted/],
    ["an external data file", { incompatible: 1n << 2n }, /external file/],
    ["the corrupt bit", { incompatible: 1n << 1n }, /corrupt/],
    ["the dirty bit", { incompatible: 1n }, /dirty/],
    ["an unknown incompatible feature", { incompatible: 1n << 40n }, /0x10000000000/],
    ["tiny clusters", { clusterBits: 8 }, /cluster size/],
    ["huge clusters", { clusterBits: 22 }, /cluster size/],
    ["absurd cluster bits", { clusterBits: 0xff_ff_ff_ff }, /cluster size/],
    ["no virtual size", { virtualSize: 0n }, /virtual size of 0/],
    ["a virtual size beyond all numbers", { virtualSize: 2n ** 64n - 1n }, /absurd virtual size/],
    ["a huge L1 table", { l1Entries: 5_000_000 }, /absurd L1/],
    ["an L1 table too small", { l1Entries: 19 }, /too small/],
    ["no refcount table", { refcountClusters: 0 }, /refcount table size/],
    ["a huge refcount table", { refcountClusters: 1000 }, /refcount table size/],
    ["a table at zero", { l1Offset: 0n }, /absurd place/],
    ["a table between clusters", { l1Offset: 0x30_001n }, /absurd place/],
    ["a table beyond all numbers", { refcountOffset: 2n ** 63n }, /absurd place/],
    ["a huge number of snapshots", { snapshots: 65_537 }, /snapshots/],
    ["a wide refcount", { refcountOrder: 7 }, /refcount width/],
    ["a header shorter than its fields", { headerLength: 96 }, /absurd length/],
    ["a header that is no multiple of eight", { headerLength: 107 }, /absurd length/],
    ["a header as long as the file", { headerLength: 0xff_ff_ff_f8 }, /absurd length/],
    ["an extension with a data file", { extensions: [[0x44_41_54_41, "/etc/shadow"]] }, /external data file/],
    ["an extension with an encryption header", { extensions: [[0x05_37_be_77, "x"]] }, /encrypted/],
    ["an extension too long", { extensions: [[0x68_03_f8_57, "x", 70_000]] }, /beyond its first cluster/],
  ] as const)("refuses %s", (_what, change, reason) => {
    expect(reasonOf(qcow2Head(change))).toMatch(reason);
  });

  it("accepts known extensions and features", () => {
    expect(
      reasonOf(
        qcow2Head({
          extensions: [
            [0x68_03_f8_57, "feature names"],
            [0x23_85_28_75, "bitmaps"],
          ],
        }),
      ),
    ).toBe("accepted");
    expect(reasonOf(qcow2Head({ incompatible: 1n << 3n }))).toBe("accepted");
    expect(reasonOf(qcow2Head({ incompatible: 1n << 4n, l1Entries: 40 }))).toBe("accepted");
  });

  it("sees an external data file behind other extensions", () => {
    const head = qcow2Head({
      extensions: [
        [0x68_03_f8_57, "seventeen letters"],
        [0x44_41_54_41, "x"],
      ],
    });
    expect(reasonOf(head)).toMatch(/external data file/);
  });

  it("refuses a header that is cut off", () => {
    const head = qcow2Head({});
    for (const length of [4, 71, 80, 103]) expect(reasonOf(head.subarray(0, length))).toMatch(/cut off/);
  });

  it("tells a file that ends before its tables do", () => {
    const result = parseQcow2Header(qcow2Head({}));
    if (result.kind === "refused") throw new Error(result.reason);
    expect(qcow2Truncation(result.header, result.header.tablesEndBytes)).toBeNull();
    expect(qcow2Truncation(result.header, result.header.tablesEndBytes - 1)).toMatch(/cut off/);
  });

  it("never throws and never accepts absurd numbers, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.boolean(), (noise, plausible) => {
        const head = plausible ? Uint8Array.from([...qcow2Head({}).subarray(0, 8), ...noise]) : noise;
        const result = parseQcow2Header(head);
        if (result.kind === "refused") return;
        expect(result.header.virtualSizeBytes).toBeGreaterThan(0);
        expect(Number.isSafeInteger(result.header.tablesEndBytes)).toBe(true);
      }),
    );
  });

  it("never throws when single bytes of a good header are changed", () => {
    const good = qcow2Head({}).subarray(0, 512);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 6 }), (changes) => {
        const head = Uint8Array.from(good);
        for (const [at, byte] of changes) head[at] = byte;
        const result = parseQcow2Header(head);
        if (result.kind === "header") expect(result.header.clusterSizeBytes).toBeGreaterThanOrEqual(512);
      }),
    );
  });
});

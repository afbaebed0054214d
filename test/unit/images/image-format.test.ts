import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { detectContent } from "../../../src/images/content-type.ts";
import { checkWhole, IMAGE_FORMATS, IMAGE_KINDS, identifyImage } from "../../../src/images/image-format.ts";
import { qcow2Head } from "./qcow2-sample.ts";

const LIMIT = 2 ** 44;

function bytesAt(offset: number, bytes: string | readonly number[], length = 1024): Uint8Array {
  const head = new Uint8Array(length);
  head.set(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes, offset);
  return head;
}

function bzImage(): Uint8Array {
  const head = bytesAt(0x202, "HdrS");
  head.set([0x55, 0xaa], 0x1fe);
  return head;
}

const KERNELS: readonly (readonly [string, Uint8Array])[] = [
  ["bzImage", bzImage()],
  ["ELF", bytesAt(0, [0x7f, 0x45, 0x4c, 0x46])],
  ["arm64 Image", bytesAt(56, "ARM\x64")],
  ["EFI zboot", bytesAt(0, "MZ\0\0zimg")],
];

const INITRDS: readonly (readonly [string, Uint8Array])[] = [
  ["cpio", bytesAt(0, "070701")],
  ["gzip", bytesAt(0, [0x1f, 0x8b, 0x08])],
  ["xz", bytesAt(0, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0])],
  ["zstd", bytesAt(0, [0x28, 0xb5, 0x2f, 0xfd])],
  ["legacy lz4", bytesAt(0, [0x02, 0x21, 0x4c, 0x18])],
];

const NO_DISKS: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["VMDK", bytesAt(0, "KDMV"), /VMDK.*qemu-img convert/],
  ["VMDK descriptor", bytesAt(0, "# Disk DescriptorFile"), /VMDK descriptor/],
  ["VDI", bytesAt(0x40, [0x7f, 0x10, 0xda, 0xbe]), /VDI/],
  ["VHDX", bytesAt(0, "vhdxfile"), /VHDX/],
  ["VHD", bytesAt(0, "conectix"), /VHD/],
  ["QED", bytesAt(0, "QED\0"), /QED/],
  ["gzip", bytesAt(0, [0x1f, 0x8b, 0x08]), /gzip.*Unpack it first/],
  ["xz", bytesAt(0, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), /xz/],
  ["bzip2", bytesAt(0, "BZh9"), /bzip2/],
  ["ZIP", bytesAt(0, "PK\x03\x04"), /ZIP/],
  ["tar", bytesAt(257, "ustar"), /tar archive/],
  ["a web page", bytesAt(0, "\n <!DOCTYPE html><html>"), /web page/],
  ["a kernel", bzImage(), /x86 Linux kernel.*kind=kernel/],
  ["a cpio archive", bytesAt(0, "070701"), /cpio.*kind=initrd/],
];

describe("identifyImage", () => {
  it("takes qcow2 for what it is, said or not", () => {
    for (const format of ["qcow2", null] as const) {
      const found = identifyImage(qcow2Head({}), { kind: "disk", format }, LIMIT);
      expect(found).toMatchObject({ ok: true, identity: { kind: "disk", format: "qcow2" } });
    }
  });

  it("takes unknown bytes for a raw disk", () => {
    const found = identifyImage(bytesAt(510, [0x55, 0xaa]), { kind: "disk", format: null }, LIMIT);
    expect(found).toEqual({ ok: true, identity: { kind: "disk", format: "raw" } });
  });

  it("takes an HdrS in the second sector of a disk without a boot flag for data", () => {
    expect(detectContent(bytesAt(0x202, "HdrS"))).toEqual({ kind: "unknown" });
  });

  it.each(KERNELS)("takes %s as a kernel", (_name, head) => {
    expect(identifyImage(head, { kind: "kernel", format: null }, LIMIT)).toMatchObject({ ok: true });
  });

  it.each(INITRDS)("takes %s as an initrd", (_name, head) => {
    expect(identifyImage(head, { kind: "initrd", format: null }, LIMIT)).toMatchObject({ ok: true });
  });

  it.each(NO_DISKS)("refuses %s as a disk and says what it is", (_name, head, reason) => {
    const found = identifyImage(head, { kind: "disk", format: "raw" }, LIMIT);
    expect(found).toMatchObject({ ok: false, reason: expect.stringMatching(reason) as string });
  });

  it.each([
    ["qcow2 said to be raw", qcow2Head({}), "disk", "raw", /not a raw disk: it seems to be a qcow2 disk/],
    ["raw said to be qcow2", new Uint8Array(512), "disk", "qcow2", /not a qcow2 disk.*raw bytes/],
    ["a disk said to be a kernel", qcow2Head({}), "kernel", null, /not a kernel.*qcow2/],
    ["noise said to be an initrd", new Uint8Array(512), "initrd", null, /not an initrd/],
    ["an lz4 frame said to be an initrd", bytesAt(0, [0x04, 0x22, 0x4d, 0x18]), "initrd", null, /lz4/],
    ["nothing at all", new Uint8Array(0), "disk", null, /empty/],
  ] as const)("refuses %s", (_what, head, kind, format, reason) => {
    const found = identifyImage(head, { kind, format }, LIMIT);
    expect(found).toMatchObject({ ok: false, reason: expect.stringMatching(reason) as string });
  });

  it("refuses a virtual size over the limit, however small the file", () => {
    const claim = { kind: "disk", format: null } as const;
    expect(identifyImage(qcow2Head({}), claim, 10 * 2 ** 30)).toMatchObject({ ok: true });
    const found = identifyImage(qcow2Head({}), claim, 10 * 2 ** 30 - 1);
    expect(found).toMatchObject({ ok: false, reason: expect.stringMatching(/virtual size/) as string });
  });

  it("never throws, whatever the bytes, and its reasons are sentences", () => {
    const kinds = fc.constantFrom(...IMAGE_KINDS);
    const formats = fc.constantFrom(null, ...IMAGE_FORMATS);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2048 }), kinds, formats, (head, kind, format) => {
        const found = identifyImage(head, { kind, format }, LIMIT);
        if (!found.ok) expect(found.reason).toMatch(/^[A-Z].*[.)]$/);
      }),
    );
  });
});

describe("checkWhole", () => {
  it("wants whole sectors of a raw disk", () => {
    expect(checkWhole({ kind: "disk", format: "raw" }, 1024)).toEqual({
      format: "raw",
      virtualSizeBytes: 1024,
    });
    expect(checkWhole({ kind: "disk", format: "raw" }, 1000)).toMatchObject({
      reason: expect.stringMatching(/multiple of 512/) as string,
    });
  });

  it("wants all tables of a qcow2 disk", () => {
    const found = identifyImage(qcow2Head({}), { kind: "disk", format: null }, LIMIT);
    if (!found.ok) throw new Error(found.reason);
    expect(checkWhole(found.identity, 196_768)).toEqual({ format: "qcow2", virtualSizeBytes: 10 * 2 ** 30 });
    expect(checkWhole(found.identity, 196_767)).toMatchObject({
      reason: expect.stringMatching(/cut off/) as string,
    });
  });

  it("knows no virtual size of a kernel", () => {
    expect(checkWhole({ kind: "kernel", format: null }, 7)).toEqual({ format: null, virtualSizeBytes: null });
  });
});

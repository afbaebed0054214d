import { QCOW2_MAGIC } from "./qcow2-header.ts";

/**
 * Tells from the first bytes of a file what it is. Never trusts a name or a header that came with it.
 * Magic numbers are those of the formats' own documents; offsets are in bytes.
 */

/** What a file can be used for, by its content. */
export type ContentType =
  | { readonly kind: "qcow2" }
  | { readonly kind: "kernel"; readonly name: string }
  | { readonly kind: "cpio" }
  | { readonly kind: "compressed"; readonly name: string; readonly initrd: boolean }
  /** Something that Drover knows and cannot use, with what to do about it. */
  | { readonly kind: "foreign"; readonly name: string; readonly hint: string }
  /** Nothing known: for a disk that means raw. */
  | { readonly kind: "unknown" };

interface Signature {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly type: ContentType;
}

const CONVERT = "convert it first: qemu-img convert -O qcow2 in out.qcow2";
const UNPACK = "unpack it first";

const SIGNATURES: readonly Signature[] = [
  at(0, u32(QCOW2_MAGIC), { kind: "qcow2" }),
  at(0, text("vhdxfile"), foreign("a VHDX disk", CONVERT)),
  at(0, text("conectix"), foreign("a VHD disk", CONVERT)),
  at(0, text("KDMV"), foreign("a VMDK disk", CONVERT)),
  at(0, text("COWD"), foreign("a VMDK disk", CONVERT)),
  at(0, text("# Disk DescriptorFile"), foreign("a VMDK descriptor", CONVERT)),
  at(0x40, [0x7f, 0x10, 0xda, 0xbe], foreign("a VDI disk", CONVERT)),
  at(0, text("QED\0"), foreign("a QED disk", CONVERT)),
  at(0, text("WithoutFreeSpace"), foreign("a Parallels disk", CONVERT)),
  at(0, text("WithouFreSpacExt"), foreign("a Parallels disk", CONVERT)),
  // Documentation/arch/x86/boot.rst: the setup header's magic; the boot flag before it is checked in `detect`.
  at(0x202, text("HdrS"), { kind: "kernel", name: "an x86 Linux kernel" }),
  // Documentation/arch/arm64/booting.rst and arch/riscv/boot-image-header.rst.
  at(56, text("ARM\x64"), { kind: "kernel", name: "an arm64 Linux kernel" }),
  at(56, text("RSC\x05"), { kind: "kernel", name: "a RISC-V Linux kernel" }),
  at(0, text("MZ\0\0zimg"), { kind: "kernel", name: "a Linux kernel in an EFI zboot file" }),
  at(0, [0x7f, ...text("ELF")], { kind: "kernel", name: "an ELF file" }),
  // Documentation/driver-api/early-userspace/buffer-format.rst: newc without and with checksums.
  at(0, text("070701"), { kind: "cpio" }),
  at(0, text("070702"), { kind: "cpio" }),
  at(0, [0x1f, 0x8b, 0x08], compressed("gzip")),
  at(0, [0xfd, ...text("7zXZ\0")], compressed("xz")),
  at(0, [0x28, 0xb5, 0x2f, 0xfd], compressed("zstd")),
  at(0, [0x02, 0x21, 0x4c, 0x18], compressed("lz4")),
  at(0, text("BZh"), compressed("bzip2")),
  at(0, [0x89, ...text("LZO\0\r\n\x1a\n")], compressed("lzo")),
  at(0, [0x5d, 0, 0], compressed("lzma")),
  // The kernel unpacks only the legacy framing of lz4.
  at(0, [0x04, 0x22, 0x4d, 0x18], { kind: "compressed", name: "an lz4-compressed file", initrd: false }),
  at(0, text("PK\x03\x04"), foreign("a ZIP archive", UNPACK)),
  at(0, [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], foreign("a 7z archive", UNPACK)),
  at(0, text("Rar!"), foreign("a RAR archive", UNPACK)),
  at(257, text("ustar"), foreign("a tar archive (an OVA is one too)", UNPACK)),
];

/** Tells what a file is that begins with these bytes; it needs the first 600 of them, or all. Never throws. */
export function detectContent(head: Uint8Array): ContentType {
  const found = SIGNATURES.find((signature) => matches(head, signature));
  if (found !== undefined && (found.type.kind !== "kernel" || found.offset !== 0x202 || hasBootFlag(head))) {
    return found.type;
  }
  return looksLikeMarkup(head) ? foreign("a web page", "is the address right?") : { kind: "unknown" };
}

function at(offset: number, bytes: Iterable<number>, type: ContentType): Signature {
  return { offset, bytes: Uint8Array.from(bytes), type };
}

function text(characters: string): Uint8Array {
  return new TextEncoder().encode(characters);
}

function u32(value: number): readonly number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function foreign(name: string, hint: string): ContentType {
  return { kind: "foreign", name, hint };
}

function compressed(program: string): ContentType {
  const article = /^[lx]z/.test(program) ? "an" : "a";
  return { kind: "compressed", name: `${article} ${program}-compressed file`, initrd: true };
}

function matches(head: Uint8Array, { offset, bytes }: Signature): boolean {
  return head.length >= offset + bytes.length && bytes.every((byte, index) => head[offset + index] === byte);
}

function hasBootFlag(head: Uint8Array): boolean {
  return head[0x1fe] === 0x55 && head[0x1ff] === 0xaa;
}

/** A download that ended at a login or error page is the most common wrong image. */
function looksLikeMarkup(head: Uint8Array): boolean {
  const start = new TextDecoder("latin1").decode(head.subarray(0, 256)).trimStart().toLowerCase();
  return start.startsWith("<!doctype html") || start.startsWith("<html") || start.startsWith("<?xml");
}

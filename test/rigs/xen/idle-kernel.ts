/** ELF64 for x86-64, and the notes by which Xen knows a kernel (xen/include/public/elfnote.h). */
const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const NOTE = { entry: 1, virtualBase: 3, paddrOffset: 4, xenVersion: 5, loader: 8, phys32Entry: 18 } as const;

const LOAD_ADDRESS = 0x10_0000;
const CODE_OFFSET = 0x800;
const PVH_CODE_OFFSET = 0x900;
const BYTES = 0x1000;

/** PV, in 64-bit mode: the hypercall sched_op (29) with SCHEDOP_block (1), for ever. */
const PV_CODE = [
  ...[0xb8, 29, 0, 0, 0], // mov eax, 29
  ...[0xbf, 1, 0, 0, 0], // mov edi, 1
  ...[0x31, 0xf6], // xor esi, esi
  ...[0x0f, 0x05], // syscall
  ...[0xeb, 0xf0], // jmp to the first
];
/** PVH, in 32-bit mode: hlt, with interrupts on, for one that halts with them off is a domain that stopped itself. */
const PVH_CODE = [0xfb, 0xf4, 0xeb, 0xfd];

/**
 * The smallest kernel that Xen starts as a pv or pvh guest: it sleeps for ever, so that guests cost no CPU, and hears
 * nothing. The text, at most 1,000 characters of ASCII, makes it another content.
 */
export function idleKernel(text: string): Buffer {
  const content = Buffer.alloc(BYTES);
  const notes = Buffer.concat([
    note(NOTE.xenVersion, Buffer.from("xen-3.0\0")),
    note(NOTE.loader, Buffer.from("generic\0")),
    note(NOTE.virtualBase, word64(0)),
    note(NOTE.paddrOffset, word64(0)),
    note(NOTE.entry, word64(LOAD_ADDRESS + CODE_OFFSET)),
    note(NOTE.phys32Entry, word32(LOAD_ADDRESS + PVH_CODE_OFFSET)),
  ]);
  const notesOffset = ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
  content.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  content.writeUInt16LE(2, 16); // ET_EXEC
  content.writeUInt16LE(62, 18); // EM_X86_64
  content.writeUInt32LE(1, 20);
  content.writeBigUInt64LE(BigInt(LOAD_ADDRESS + CODE_OFFSET), 24);
  content.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32);
  content.writeUInt16LE(ELF_HEADER_BYTES, 52);
  content.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  content.writeUInt16LE(2, 56);
  content.writeUInt16LE(64, 58); // size of a section header, of which there are none
  content.set(programHeader(1, 7, 0, BYTES), ELF_HEADER_BYTES); // PT_LOAD
  content.set(programHeader(4, 4, notesOffset, notes.length), ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES); // PT_NOTE
  content.set(notes, notesOffset);
  content.set(PV_CODE, CODE_OFFSET);
  content.set(PVH_CODE, PVH_CODE_OFFSET);
  content.write(text, PVH_CODE_OFFSET + 0x100, "latin1");
  return content;
}

function note(type: number, value: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt32LE(4, 0);
  head.writeUInt32LE(value.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, Buffer.from("Xen\0"), value, Buffer.alloc((4 - (value.length % 4)) % 4)]);
}

function programHeader(type: number, flags: number, offset: number, bytes: number): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER_BYTES);
  const address = BigInt(LOAD_ADDRESS + offset);
  header.writeUInt32LE(type, 0);
  header.writeUInt32LE(flags, 4);
  header.writeBigUInt64LE(BigInt(offset), 8);
  header.writeBigUInt64LE(address, 16);
  header.writeBigUInt64LE(address, 24);
  header.writeBigUInt64LE(BigInt(bytes), 32);
  header.writeBigUInt64LE(BigInt(bytes), 40);
  header.writeBigUInt64LE(4096n, 48);
  return header;
}

function word64(value: number): Buffer {
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(BigInt(value));
  return word;
}

function word32(value: number): Buffer {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(value);
  return word;
}

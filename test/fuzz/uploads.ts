/** Contents of images, each the smallest that is taken for what it says. */
export const CONTENTS = {
  disk: withSize(2048, Buffer.alloc(0)),
  kernel: withSize(1024, Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0])),
  initrd: withSize(1024, Buffer.from(`070701${"0".repeat(104)}`)),
} as const;

/** What else may be uploaded: nothing, half a sector, and qcow2 headers that lie. */
export const ODD_CONTENTS: readonly Buffer[] = [
  Buffer.alloc(0),
  Buffer.from("x"),
  withSize(1000, Buffer.alloc(0)),
  Buffer.from("QFI\xfb", "latin1"),
  ...[0, 1, 2, 3, 4, 0xffff_ffff].flatMap((version) => [qcow2(version, 0n), qcow2(version, 2n ** 63n)]),
  withSize(600, Buffer.from("MZ")),
  withSize(600, Buffer.from([0x1f, 0x8b, 8, 0])),
  withSize(600, Buffer.from("<html>")),
];

function qcow2(version: number, virtualSizeBytes: bigint): Buffer {
  const header = Buffer.alloc(1024);
  header.write("QFI\xfb", 0, "latin1");
  header.writeUInt32BE(version, 4);
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(virtualSizeBytes, 24);
  header.writeUInt32BE(1, 36);
  header.writeUInt32BE(104, 100);
  return header;
}

function withSize(sizeBytes: number, head: Buffer): Buffer {
  return Buffer.concat([head, Buffer.alloc(sizeBytes - head.length)]);
}

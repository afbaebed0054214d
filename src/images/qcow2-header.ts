/**
 * Reads the header of a qcow2 file. The layout is QEMU's docs/interop/qcow2.txt; all numbers are big-endian.
 * Whatever a client uploads ends up in front of QEMU on a host, so everything that would make QEMU open another
 * file, ask for a key or allocate without measure is refused here, without QEMU.
 */

export const QCOW2_MAGIC = 0x51_46_49_fb;

/** Length of the header of version 2; version 3 adds to it. */
const HEADER_V2_BYTES = 72;
const HEADER_V3_BYTES = 104;
/** How much of the file this parser wants to see: the header and its extensions end before the first 64 KiB do. */
export const QCOW2_HEAD_BYTES = 65_536;

// QEMU's own limits (block/qcow2.h): outside of them it does not open the file either.
const MIN_CLUSTER_BITS = 9;
const MAX_CLUSTER_BITS = 21;
const MAX_L1_BYTES = 32 * 1024 * 1024;
const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024;
const MAX_SNAPSHOTS = 65_536;
const MAX_REFCOUNT_ORDER = 6;

const INCOMPATIBLE_DIRTY = 1n << 0n;
const INCOMPATIBLE_CORRUPT = 1n << 1n;
const INCOMPATIBLE_DATA_FILE = 1n << 2n;
const INCOMPATIBLE_COMPRESSION = 1n << 3n;
const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
const INCOMPATIBLE_KNOWN =
  INCOMPATIBLE_DIRTY |
  INCOMPATIBLE_CORRUPT |
  INCOMPATIBLE_DATA_FILE |
  INCOMPATIBLE_COMPRESSION |
  INCOMPATIBLE_EXTENDED_L2;

const EXTENSION_END = 0;
const EXTENSION_ENCRYPTION = 0x05_37_be_77;
const EXTENSION_DATA_FILE = 0x44_41_54_41;

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly virtualSizeBytes: number;
  readonly clusterSizeBytes: number;
  /** Where the tables end that the file must hold, in bytes from its beginning. */
  readonly tablesEndBytes: number;
}

export type Qcow2Result =
  | { readonly kind: "header"; readonly header: Qcow2Header }
  /** A sentence without a subject, such as `has a backing file`. */
  | { readonly kind: "refused"; readonly reason: string };

/**
 * Reads the beginning of a qcow2 file (`QCOW2_HEAD_BYTES`, or all of it when it is shorter) that starts with its
 * magic. Never throws, whatever the bytes.
 */
export function parseQcow2Header(head: Uint8Array): Qcow2Result {
  if (head.length < HEADER_V2_BYTES) return refused("ends within its qcow2 header: it is cut off");
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    return refused(`has qcow2 version ${version}; only 2 and 3 are known`);
  }
  if (version === 3 && head.length < HEADER_V3_BYTES) {
    return refused("ends within its qcow2 header: it is cut off");
  }
  const reason =
    refusalOfReferences(view) ??
    (version === 3 ? refusalOfVersion3(view) : null) ??
    refusalOfExtensions(view, version === 3 ? view.getUint32(100) : HEADER_V2_BYTES);
  return reason === null ? geometry(view, version) : refused(reason);
}

/** Why a header whose file has this size cannot be whole; null when it can. */
export function qcow2Truncation(header: Qcow2Header, sizeBytes: number): string | null {
  if (header.tablesEndBytes <= sizeBytes) return null;
  return `is cut off: its tables reach to byte ${header.tablesEndBytes}, and it ends at ${sizeBytes}`;
}

function refused(reason: string): Qcow2Result {
  return { kind: "refused", reason };
}

/** A backing file would let QEMU read any file of the host on behalf of whoever uploaded the image. */
function refusalOfReferences(view: DataView): string | null {
  if (view.getBigUint64(8) !== 0n || view.getUint32(16) !== 0) {
    return "has a backing file; flatten it first: qemu-img convert -O qcow2 in.qcow2 out.qcow2";
  }
  if (view.getUint32(32) !== 0) {
    return "is encrypted, and Drover has no key for it; decrypt it first with qemu-img convert";
  }
  return null;
}

function refusalOfVersion3(view: DataView): string | null {
  const incompatible = view.getBigUint64(72);
  if ((incompatible & INCOMPATIBLE_DATA_FILE) !== 0n) {
    return "keeps its data in an external file; convert it to one file first: qemu-img convert -O qcow2 in.qcow2 out.qcow2";
  }
  if ((incompatible & INCOMPATIBLE_CORRUPT) !== 0n) {
    return "is marked as corrupt; repair it first: qemu-img check -r all";
  }
  if ((incompatible & INCOMPATIBLE_DIRTY) !== 0n) {
    return "was not closed properly (its dirty bit is set); repair it first: qemu-img check -r all";
  }
  if ((incompatible & ~INCOMPATIBLE_KNOWN) !== 0n) {
    return `uses unknown incompatible qcow2 features (0x${(incompatible & ~INCOMPATIBLE_KNOWN).toString(16)})`;
  }
  if (view.getUint32(96) > MAX_REFCOUNT_ORDER) return "has an absurd refcount width in its qcow2 header";
  const headerLength = view.getUint32(100);
  if (headerLength < HEADER_V3_BYTES || headerLength % 8 !== 0 || headerLength > 4096) {
    return `has an absurd length (${headerLength} bytes) in its qcow2 header`;
  }
  return null;
}

/** Walks the header extensions: type, length, data padded to eight bytes, until the end mark. */
function refusalOfExtensions(view: DataView, start: number): string | null {
  const end = Math.min(view.byteLength, clusterSizeOf(view));
  let offset = start;
  while (offset + 8 <= end) {
    const type = view.getUint32(offset);
    const length = view.getUint32(offset + 4);
    if (type === EXTENSION_END) return null;
    if (type === EXTENSION_DATA_FILE) return "names an external data file in its qcow2 header";
    if (type === EXTENSION_ENCRYPTION) return "is encrypted, and Drover has no key for it";
    if (offset + 8 + length > end)
      return "has a qcow2 header extension that reaches beyond its first cluster";
    offset += 8 + Math.ceil(length / 8) * 8;
  }
  return null;
}

function clusterSizeOf(view: DataView): number {
  const bits = view.getUint32(20);
  return bits <= MAX_CLUSTER_BITS ? 2 ** bits : 0;
}

function geometry(view: DataView, version: 2 | 3): Qcow2Result {
  const bits = view.getUint32(20);
  if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS) {
    return refused(`has an absurd cluster size (2^${bits} bytes) in its qcow2 header`);
  }
  const cluster = 2 ** bits;
  const virtualSize = view.getBigUint64(24);
  if (virtualSize === 0n) return refused("has a virtual size of 0");
  if (virtualSize > BigInt(Number.MAX_SAFE_INTEGER)) return refused("has an absurd virtual size");
  const entryBytes = version === 3 && (view.getBigUint64(72) & INCOMPATIBLE_EXTENDED_L2) !== 0n ? 16 : 8;
  const l1Entries = view.getUint32(36);
  const l1Needed = Math.ceil(Number(virtualSize) / (cluster * (cluster / entryBytes)));
  if (l1Entries * 8 > MAX_L1_BYTES) return refused("has an absurd L1 table size in its qcow2 header");
  if (l1Entries < l1Needed) return refused("has an L1 table too small for its virtual size");
  const refcountBytes = view.getUint32(56) * cluster;
  if (refcountBytes === 0 || refcountBytes > MAX_REFCOUNT_TABLE_BYTES) {
    return refused("has an absurd refcount table size in its qcow2 header");
  }
  if (view.getUint32(60) > MAX_SNAPSHOTS)
    return refused("has an absurd number of snapshots in its qcow2 header");
  return tables(view, version, { cluster, virtualSize: Number(virtualSize), l1Bytes: l1Entries * 8 });
}

interface Geometry {
  readonly cluster: number;
  readonly virtualSize: number;
  readonly l1Bytes: number;
}

function tables(view: DataView, version: 2 | 3, sizes: Geometry): Qcow2Result {
  const l1Offset = view.getBigUint64(40);
  const refcountOffset = view.getBigUint64(48);
  const limit = BigInt(Number.MAX_SAFE_INTEGER) / 2n;
  for (const offset of [l1Offset, refcountOffset]) {
    if (offset === 0n || offset % BigInt(sizes.cluster) !== 0n || offset > limit) {
      return refused("has a table at an absurd place in its qcow2 header");
    }
  }
  // Of the refcount table only the first entry is demanded: writers may leave its last cluster unwritten.
  const tablesEndBytes = Math.max(Number(l1Offset) + sizes.l1Bytes, Number(refcountOffset) + 8);
  return {
    kind: "header",
    header: { version, virtualSizeBytes: sizes.virtualSize, clusterSizeBytes: sizes.cluster, tablesEndBytes },
  };
}

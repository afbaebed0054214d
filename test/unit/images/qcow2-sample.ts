/** A qcow2 header made to measure; what is left out is as `qemu-img create -f qcow2 x 10G` writes it. */
export interface Qcow2Sample {
  readonly version?: number;
  readonly backingOffset?: bigint;
  readonly backingLength?: number;
  readonly clusterBits?: number;
  readonly virtualSize?: bigint;
  readonly cryptMethod?: number;
  readonly l1Entries?: number;
  readonly l1Offset?: bigint;
  readonly refcountOffset?: bigint;
  readonly refcountClusters?: number;
  readonly snapshots?: number;
  readonly incompatible?: bigint;
  readonly refcountOrder?: number;
  readonly headerLength?: number;
  /** Type, data, and the length that is claimed where it is not the data's. */
  readonly extensions?: readonly (readonly [number, string, number?])[];
}

/** The first 64 KiB of such a file. */
export function qcow2Head(sample: Qcow2Sample): Uint8Array {
  const head = new Uint8Array(65_536);
  const view = new DataView(head.buffer);
  const version = sample.version ?? 3;
  view.setUint32(0, 0x51_46_49_fb);
  view.setUint32(4, version);
  view.setBigUint64(8, sample.backingOffset ?? 0n);
  view.setUint32(16, sample.backingLength ?? 0);
  view.setUint32(20, sample.clusterBits ?? 16);
  view.setBigUint64(24, sample.virtualSize ?? 10n * 2n ** 30n);
  view.setUint32(32, sample.cryptMethod ?? 0);
  view.setUint32(36, sample.l1Entries ?? 20);
  view.setBigUint64(40, sample.l1Offset ?? 0x3_00_00n);
  view.setBigUint64(48, sample.refcountOffset ?? 0x1_00_00n);
  view.setUint32(56, sample.refcountClusters ?? 1);
  view.setUint32(60, sample.snapshots ?? 0);
  if (version === 2) return head;
  view.setBigUint64(72, sample.incompatible ?? 0n);
  view.setUint32(96, sample.refcountOrder ?? 4);
  view.setUint32(100, sample.headerLength ?? 112);
  writeExtensions(head, view, sample);
  return head;
}

function writeExtensions(head: Uint8Array, view: DataView, sample: Qcow2Sample): void {
  let offset = 112;
  for (const [type, data, claimedLength] of sample.extensions ?? []) {
    view.setUint32(offset, type);
    view.setUint32(offset + 4, claimedLength ?? data.length);
    head.set(new TextEncoder().encode(data), offset + 8);
    offset += 8 + Math.ceil(data.length / 8) * 8;
  }
}

/** A whole file of the sample's geometry: its header and zeros up to the end of its L1 table. */
export function qcow2File(sample: Qcow2Sample = {}): Uint8Array {
  const file = new Uint8Array(0x3_00_00 + (sample.l1Entries ?? 20) * 8);
  file.set(qcow2Head(sample));
  return file;
}

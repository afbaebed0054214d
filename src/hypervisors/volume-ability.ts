import type { Readable } from "node:stream";
import type { Call } from "./call.ts";

/**
 * The part of the contract that is about volumes. A pool that the host does not have rejects with `not-found`, one
 * without room with `storage-full`.
 */
export interface VolumeAbility {
  /** The volume, or null when the pool has none of this name. Refreshes nothing by itself. */
  observeVolume(ref: VolumeRef, call: Call): Promise<ObservedVolume | null>;
  /** Makes an empty volume. One of this name that is there already is left as it is. */
  createVolume(spec: VolumeSpec, call: Call): Promise<ObservedVolume>;
  /**
   * Writes the volume's content from its beginning; `sizeBytes` is what the source will give, and another amount
   * rejects. The call's time limit is for each answer of the host, not for the source. No such volume: `not-found`. Of
   * the source's chunks no more than the last three are kept: what came before may be overwritten by then.
   */
  uploadVolume(
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    sizeBytes: number,
    call: Call,
  ): Promise<void>;
  /** Grows the volume to this capacity; never shrinks it. No such volume: `not-found`. */
  growVolume(ref: VolumeRef, capacityBytes: number, call: Call): Promise<void>;
  /** Deletes the volume. None: fine. */
  deleteVolume(ref: VolumeRef, call: Call): Promise<void>;
  /** Names of all volumes in the pool that start with the prefix, read anew from the pool. */
  listVolumes(pool: string, prefix: string, call: Call): Promise<readonly ObservedVolume[]>;
  /**
   * Makes a volume with the content of another one of its pool and format, copied on the host; not smaller than
   * `capacityBytes`. One of this name that is there already is made anew, for it may be half of a copy that broke off:
   * never one that is in use. It may take as long as the content takes. No such source: `not-found`.
   */
  copyVolume(spec: VolumeSpec, source: VolumeRef, call: Call): Promise<ObservedVolume>;
  /**
   * Makes a qcow2 volume that holds only what differs from another one of its pool, and reads the rest from there: that
   * must stay as it is for as long as this one exists. One of this name that is there already is made anew, as above.
   */
  readonly overlayVolume?: (
    spec: VolumeSpec,
    base: VolumeRef & { readonly format: VolumeFormat },
    call: Call,
  ) => Promise<ObservedVolume>;
  /**
   * Writes a part of the volume's content, and leaves what lies before it. As uploadVolume in all else. Parts are
   * written from the beginning on, each after the one before it has succeeded.
   */
  readonly uploadPart?: (
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    part: { readonly offsetBytes: number; readonly sizeBytes: number },
    call: Call,
  ) => Promise<void>;
  /** The SHA-256, in hexadecimal, of the volume's first bytes as they are on the host's disk; told by the host itself. */
  readonly digestVolume?: (ref: VolumeRef, sizeBytes: number, call: Call) => Promise<string>;
}

export interface VolumeRef {
  readonly pool: string;
  readonly name: string;
}

export type VolumeFormat = "raw" | "qcow2";

export interface VolumeSpec extends VolumeRef {
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
}

export interface ObservedVolume extends VolumeRef {
  readonly path: string;
  readonly capacityBytes: number;
  readonly allocationBytes: number;
}

/** A volume's content on its way. */
export interface VolumeDownload {
  /** How much comes. */
  readonly sizeBytes: number;
  readonly content: Readable;
}

import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import type { ImageRecord } from "../images/image-record.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { HostId, HostImageId, InstallationId, OperationId } from "../lib/ids.ts";

/** `absent`: not known to be whole. `filling` and `evicting`: an operation does that. `ready`: volumes can be made of it. */
export const HOST_IMAGE_STATES = ["absent", "filling", "ready", "evicting"] as const;
export type HostImageState = (typeof HOST_IMAGE_STATES)[number];

/** A content as a host's pool keeps it. */
export interface CachedContent {
  readonly sha256: string;
  readonly format: VolumeFormat;
  readonly sizeBytes: number;
  /** Of its volume: the size that a guest sees. */
  readonly capacityBytes: number;
}

/** An image's content; null while it has none. */
export function cachedContent({ content }: Pick<ImageRecord, "content">): CachedContent | null {
  if (content === null) return null;
  const { sha256, sizeBytes, format, virtualSizeBytes } = content;
  return { sha256, sizeBytes, format: format ?? "raw", capacityBytes: virtualSizeBytes ?? sizeBytes };
}

/** The copy of an image's content in a pool of a host. */
export interface HostImage extends CachedContent {
  readonly id: HostImageId;
  readonly hostId: HostId;
  readonly pool: string;
  /** Of its volume. */
  readonly name: string;
  readonly state: HostImageState;
  /** How much of it has arrived for certain. */
  readonly filledBytes: number;
  /** What fills or evicts it, or did so last. */
  readonly operationId: OperationId | null;
  /** Why it could not be filled. */
  readonly error: ErrorBody | null;
  readonly lastUsedAt: Date;
  /** How many volumes are being made of it or read from it: with any it stays. */
  readonly uses: number;
}

/** The kinds of pools whose volumes are files, of which copies can be made and shared. */
export const CACHING_POOL_TYPES = ["dir"] as const;

/** Holds the installation's id, so that two that share a host neither use nor delete each other's. */
export function hostImageName(
  installationId: InstallationId,
  { sha256, format }: Pick<CachedContent, "sha256" | "format">,
): string {
  return `drover-image-${installationId}-${sha256}.${format}`;
}

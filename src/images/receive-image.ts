import { DroverError } from "../lib/errors.ts";
import type { ImageFiles } from "./image-files.ts";
import { checkWhole, type Identity, type ImageClaim, identifyImage } from "./image-format.ts";
import type { ImageContentFacts } from "./image-record.ts";
import type { ReceivedFile } from "./incoming-file.ts";
import { askQemuImg } from "./qemu-img.ts";

/** How a stream of bytes becomes a content that may be stored: the same for uploads and imports. */

export interface ImageLimits {
  /** The largest file. */
  readonly maxBytes: number;
  /** The largest disk that a guest may see. */
  readonly maxVirtualSizeBytes: number;
}

export interface ReceiverDeps {
  readonly files: ImageFiles;
  readonly limits: ImageLimits;
  /** `qemu-img`, or the path of one; null asks nobody. */
  readonly qemuImg: string | null;
}

export interface ImageTransfer {
  /** A part of the incoming file's name. */
  readonly label: string;
  readonly claim: ImageClaim;
  /** What the sender says the SHA-256 is, in lower-case hexadecimal; null when it does not. */
  readonly sha256: string | null;
  readonly source: AsyncIterable<Uint8Array>;
  readonly announcedBytes: number | null;
  readonly signal?: AbortSignal;
  readonly onProgress?: (receivedBytes: number) => void;
}

export interface ReceivedImage {
  /** Place it, then discard it (ImageFiles). */
  readonly file: ReceivedFile;
  readonly content: ImageContentFacts;
}

/**
 * Receives an image and checks all of it. When it rejects, nothing is left behind.
 * @throws {DroverError} `image_invalid` (as early as the first bytes show it), `checksum_mismatch`,
 * `payload_too_large`, `storage_full`; what the source or the signal throws.
 */
export async function receiveImage(deps: ReceiverDeps, transfer: ImageTransfer): Promise<ReceivedImage> {
  const { claim, label, sha256, ...stream } = transfer;
  let identity: Identity | null = null;
  const file = await deps.files.receive(label, {
    ...stream,
    maxBytes: deps.limits.maxBytes,
    onHead: (head) => {
      identity = identify(head, claim, deps.limits);
    },
  });
  try {
    if (sha256 !== null && sha256 !== file.sha256) throw wrongChecksum(sha256, file.sha256);
    return { file, content: await check(deps, file, identity) };
  } catch (error) {
    await deps.files.discard(file.file);
    throw error;
  }
}

function identify(head: Uint8Array, claim: ImageClaim, { maxVirtualSizeBytes }: ImageLimits): Identity {
  const identified = identifyImage(head, claim, maxVirtualSizeBytes);
  if (identified.ok) return identified.identity;
  throw invalid(identified.reason);
}

async function check(
  { qemuImg }: ReceiverDeps,
  { file, sha256, sizeBytes }: ReceivedFile,
  identity: Identity | null,
): Promise<ImageContentFacts> {
  if (identity === null) throw new TypeError("a file was received whose first bytes nobody looked at");
  const whole = checkWhole(identity, sizeBytes);
  if ("reason" in whole) throw invalid(whole.reason);
  if (whole.format === "qcow2" && qemuImg !== null) {
    const opinion = await askQemuImg(qemuImg, file, whole.virtualSizeBytes ?? 0);
    if (opinion.kind === "objects") throw invalid(opinion.reason);
  }
  return { sha256, sizeBytes, format: whole.format, virtualSizeBytes: whole.virtualSizeBytes };
}

function invalid(reason: string): DroverError {
  return new DroverError("image_invalid", `${reason} Nothing of it was kept.`);
}

function wrongChecksum(asked: string, found: string): DroverError {
  return new DroverError(
    "checksum_mismatch",
    `The content has the SHA-256 ${found}, not ${asked}: it was changed on the way, or it is another file. ` +
      "Nothing of it was kept.",
    { details: { expected: asked, found } },
  );
}

import type { Tx } from "../db/client.ts";
import { uniqueViolation } from "../db/database-errors.ts";
import { appendEvent } from "../events/event-store.ts";
import { DroverError } from "../lib/errors.ts";
import { type ImageId, newId, type ProjectId } from "../lib/ids.ts";
import { placeContent } from "./image-contents.ts";
import { imageEvent } from "./image-events.ts";
import type { ImageClaim } from "./image-format.ts";
import type { ImageRecord } from "./image-record.ts";
import { type ImageServiceDeps, nameTaken } from "./image-service.ts";
import { findImage, insertReadyImage } from "./image-store.ts";
import { hashStream } from "./incoming-file.ts";
import { type ReceivedImage, type ReceiverDeps, receiveImage } from "./receive-image.ts";

/** Uploads. An upload is bound to its content: sent again under the same name, it is the same image. */

export interface UploadDeps extends ReceiverDeps {
  readonly database: ImageServiceDeps["database"];
  readonly collector: ImageServiceDeps["collector"];
}

export interface Upload {
  readonly projectId: ProjectId;
  readonly name: string;
  readonly claim: ImageClaim;
  /** As the client gave it; null: not given. */
  readonly sha256: string | null;
  readonly announcedBytes: number | null;
  readonly source: AsyncIterable<Uint8Array>;
}

export interface UploadResult {
  readonly image: ImageRecord;
  /** False: the image was there already, with this very content. */
  readonly created: boolean;
}

/** Runs work in a transaction, under the client's Idempotency-Key where there is one. */
export type Commit<T> = (sha256: string, work: (tx: Tx) => Promise<UploadResult>) => Promise<T>;

/**
 * Receives an image, stores it and commits its row. What breaks off or is refused leaves nothing behind.
 * @throws {DroverError} `name_taken`, and what `receiveImage` throws.
 */
export async function uploadImage<T>(deps: UploadDeps, upload: Upload, commit: Commit<T>): Promise<T> {
  const existing = await findImage(deps.database, upload.projectId, upload.name);
  if (existing !== null) return await uploadAgain(deps, upload, existing, commit);
  const received = await receiveImage(deps, { label: "upload", ...upload });
  try {
    return await commit(received.content.sha256, (tx) => store(deps, tx, upload, received));
  } catch (error) {
    // Placed or not, and committed or not where the connection broke at the commit: the rows say.
    deps.collector.collect(received.content.sha256);
    const raced =
      uniqueViolation(error) === null ? null : await findImage(deps.database, upload.projectId, upload.name);
    if (raced === null) throw error;
    requireSame(raced, upload, received.content);
    return await commit(received.content.sha256, () => Promise.resolve({ image: raced, created: false }));
  } finally {
    await deps.files.discard(received.file.file);
  }
}

async function store(
  deps: UploadDeps,
  tx: Tx,
  { projectId, name, claim }: Upload,
  { file, content }: ReceivedImage,
): Promise<UploadResult> {
  await placeContent(tx, deps.files, file);
  const row = { id: newId<ImageId>(), projectId, name, kind: claim.kind, labels: {} };
  const image = await insertReadyImage(tx, row, content);
  await appendEvent(tx, imageEvent("image.created", image), imageEvent("image.ready", image));
  return { image, created: true };
}

/** The name is taken: by this content, which makes it a repeated upload, or by another. Nothing is stored. */
async function uploadAgain<T>(
  deps: UploadDeps,
  upload: Upload,
  existing: ImageRecord,
  commit: Commit<T>,
): Promise<T> {
  const { sha256, announcedBytes } = upload;
  // What the client says of itself spares it the sending, where it can only be refused.
  requireSame(existing, upload, {
    ...(sha256 === null ? {} : { sha256 }),
    ...(announcedBytes === null ? {} : { sizeBytes: announcedBytes }),
  });
  // That the client has the content, and not only its name, shows by sending it.
  const sent = await hashStream(upload.source, deps.limits.maxBytes);
  requireSame(existing, upload, sent);
  return await commit(sent.sha256, () => Promise.resolve({ image: existing, created: false }));
}

function requireSame(
  existing: ImageRecord,
  { name, claim }: Upload,
  sent: { readonly sha256?: string; readonly sizeBytes?: number },
): void {
  const { content } = existing;
  if (existing.state !== "ready" || content === null) throw notReady(existing);
  const same =
    existing.kind === claim.kind &&
    (claim.format === null || existing.format === claim.format) &&
    (sent.sha256 === undefined || sent.sha256 === content.sha256) &&
    (sent.sizeBytes === undefined || sent.sizeBytes === content.sizeBytes);
  if (!same) throw nameTaken(name);
}

function notReady({ name, state }: ImageRecord): DroverError {
  const what =
    state === "failed"
      ? "whose import failed: delete it first"
      : "that is still being imported: wait for it, or delete it first";
  return new DroverError("name_taken", `There is an image "${name}" already, ${what}.`);
}

import type { Tx } from "../db/client.ts";
import { appendEvent } from "../events/event-store.ts";
import { DroverError, type ErrorBody, toErrorBody } from "../lib/errors.ts";
import { asId, type ImageId } from "../lib/ids.ts";
import type { OperationContext, OperationOutcome, StepContext } from "../operations/operation-kind.ts";
import { placeContent } from "./image-contents.ts";
import { imageEvent } from "./image-events.ts";
import type { ImageFiles } from "./image-files.ts";
import type { ImageRecord } from "./image-record.ts";
import { getImage, lockContent, setArrivedContent, setImageFailed, setImageReady } from "./image-store.ts";
import type { ReceivedImage } from "./receive-image.ts";

/** How an operation gives an image its content, and how it ends: the same for imports and builds. */

export interface ArrivalInput {
  readonly imageId: string;
}

export interface ArrivalDeps {
  readonly files: ImageFiles;
  /** Called with the digest of a content that may have become unused. */
  readonly collect: (sha256: string) => void;
}

export function imageIdOf({ imageId }: ArrivalInput): ImageId {
  return asId<ImageId>(imageId);
}

/** The image while it waits for its content. Throws when it was deleted meanwhile, or has ended. */
export async function arrivingImage(context: StepContext<ArrivalInput>): Promise<ImageRecord> {
  const image = await context.transaction((tx) => getImage(tx, imageIdOf(context.operation.input)));
  if (image?.state !== "importing" && image?.state !== "building") throw gone();
  return image;
}

/** Places a received content and gives it to the image, in one transaction. */
export async function storeArrived(
  deps: ArrivalDeps,
  context: StepContext<ArrivalInput>,
  { file, content }: ReceivedImage,
): Promise<void> {
  try {
    await context.transaction(async (tx) => {
      await placeContent(tx, deps.files, file);
      if (!(await setArrivedContent(tx, imageIdOf(context.operation.input), content))) throw gone();
    });
  } catch (error) {
    deps.collect(content.sha256);
    throw error;
  } finally {
    await deps.files.discard(file.file);
  }
}

/** For the record of the last step. */
export async function recordReady(tx: Tx, operation: OperationContext<ArrivalInput>): Promise<void> {
  const image = await setImageReady(tx, imageIdOf(operation.input));
  if (image === null) throw gone();
  await appendEvent(tx, imageEvent("image.ready", image, operation.id));
}

/** An image that came to nothing stays, with its error, until it is deleted; one that was deleted leaves nothing. */
export async function recordEnd(
  deps: Pick<ArrivalDeps, "collect">,
  tx: Tx,
  operation: OperationContext<ArrivalInput>,
  outcome: OperationOutcome,
): Promise<void> {
  if (outcome.state === "succeeded") return;
  const id = imageIdOf(operation.input);
  const content = (await getImage(tx, id))?.content ?? null;
  if (content !== null) {
    await lockContent(tx, content.sha256);
    deps.collect(content.sha256);
  }
  const error: ErrorBody = toErrorBody(outcome.error);
  const image = await setImageFailed(tx, id, error);
  if (image === null) return;
  await appendEvent(
    tx,
    imageEvent("image.failed", image, operation.id, { code: error.code, message: error.message }),
  );
}

function gone(): DroverError {
  return new DroverError("cancelled", "The image was deleted before it had its content.");
}

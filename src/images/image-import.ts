import { z } from "zod";
import type { Tx } from "../db/client.ts";
import { appendEvent } from "../events/event-store.ts";
import { DroverError, type ErrorBody, toErrorBody } from "../lib/errors.ts";
import { asId, type ImageId } from "../lib/ids.ts";
import type {
  OperationContext,
  OperationKind,
  OperationOutcome,
  StepContext,
} from "../operations/operation-kind.ts";
import type { ImportAllowList } from "./address-guard.ts";
import { placeContent } from "./image-contents.ts";
import { type Download, openDownload, type Resolve } from "./image-download.ts";
import { imageEvent } from "./image-events.ts";
import { IMAGE_FORMATS, IMAGE_KINDS } from "./image-format.ts";
import { getImage, lockContent, setImageFailed, setImageReady, setImportedContent } from "./image-store.ts";
import { type ReceivedImage, type ReceiverDeps, receiveImage } from "./receive-image.ts";

/** The operation that fetches an image from a URL. It touches no host, so any worker may run it. */

const ImportInput = z.object({
  imageId: z.string(),
  kind: z.enum(IMAGE_KINDS),
  format: z.enum(IMAGE_FORMATS).nullable(),
  /** With its query, which the image's row and the API leave out. */
  url: z.string(),
  sha256: z.string().nullable(),
});
export type ImportInput = z.output<typeof ImportInput>;

export interface ImportDeps extends ReceiverDeps {
  readonly allow: ImportAllowList;
  /** How names are resolved; the system's way without. */
  readonly resolve?: Resolve;
  /** Called with the digest of a content that may have become unused. */
  readonly collect: (sha256: string) => void;
}

// Half a day is enough for the largest image over the slowest line that anyone would wait for.
const DOWNLOAD_LIMIT_SECONDS = 12 * 3600;
const DEADLINE_SECONDS = 24 * 3600;

export function imageImportKind(deps: ImportDeps): OperationKind<ImportInput> {
  return {
    name: "image.import",
    input: ImportInput,
    deadlineSeconds: DEADLINE_SECONDS,
    steps: [
      {
        name: "download",
        timeoutSeconds: DOWNLOAD_LIMIT_SECONDS,
        run: async (context) => {
          await download(deps, context);
          return undefined;
        },
        record: recordReady,
        undo: async ({ operation }) => {
          await deps.files.discardLabelled(labelOf(operation.input));
        },
      },
    ],
    onEnd: (tx, operation, outcome) => recordEnd(deps, tx, operation, outcome),
  };
}

function labelOf({ imageId }: ImportInput): string {
  return `import-${imageId}`;
}

function imageIdOf({ imageId }: ImportInput): ImageId {
  return asId<ImageId>(imageId);
}

async function download(deps: ImportDeps, context: StepContext<ImportInput>): Promise<void> {
  const { input } = context.operation;
  const image = await context.transaction((tx) => getImage(tx, imageIdOf(input)));
  if (image?.state !== "importing") throw gone();
  // Killed between the content's commit and the step's record: all is there.
  if (image.content !== null) return;
  await deps.files.discardLabelled(labelOf(input));
  const opened = await openDownload(input.url, {
    allow: deps.allow,
    signal: context.signal,
    digestKnown: input.sha256 !== null,
    ...(deps.resolve === undefined ? {} : { resolve: deps.resolve }),
  });
  try {
    await store(deps, context, await receive(deps, context, opened));
  } finally {
    opened.close();
  }
}

async function receive(
  deps: ImportDeps,
  context: StepContext<ImportInput>,
  { content, sizeBytes }: Download,
): Promise<ReceivedImage> {
  const { kind, format, sha256 } = context.operation.input;
  return await receiveImage(deps, {
    label: labelOf(context.operation.input),
    claim: { kind, format },
    sha256,
    source: content,
    announcedBytes: sizeBytes,
    signal: context.signal,
    onProgress: (received) => {
      context.progress(received, sizeBytes ?? received, "bytes");
    },
  });
}

async function store(
  deps: ImportDeps,
  context: StepContext<ImportInput>,
  { file, content }: ReceivedImage,
): Promise<void> {
  try {
    await context.transaction(async (tx) => {
      await placeContent(tx, deps.files, file);
      if (!(await setImportedContent(tx, imageIdOf(context.operation.input), content))) throw gone();
    });
  } catch (error) {
    deps.collect(content.sha256);
    throw error;
  } finally {
    await deps.files.discard(file.file);
  }
}

async function recordReady(tx: Tx, operation: OperationContext<ImportInput>): Promise<void> {
  const image = await setImageReady(tx, imageIdOf(operation.input));
  if (image === null) throw gone();
  await appendEvent(tx, imageEvent("image.ready", image, operation.id));
}

/** A failed import stays, with its error, until it is deleted; one whose image was deleted leaves nothing. */
async function recordEnd(
  deps: ImportDeps,
  tx: Tx,
  operation: OperationContext<ImportInput>,
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
  return new DroverError("cancelled", "The image was deleted while it was imported.");
}

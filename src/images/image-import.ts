import { z } from "zod";
import type { OperationKind, StepContext } from "../operations/operation-kind.ts";
import type { ImportAllowList } from "./address-guard.ts";
import { type ArrivalDeps, arrivingImage, recordEnd, recordReady, storeArrived } from "./image-arrival.ts";
import { type Download, openDownload, type Resolve } from "./image-download.ts";
import { IMAGE_FORMATS, IMAGE_KINDS } from "./image-format.ts";
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

export interface ImportDeps extends ReceiverDeps, ArrivalDeps {
  readonly allow: ImportAllowList;
  /** How names are resolved; the system's way without. */
  readonly resolve?: Resolve;
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

async function download(deps: ImportDeps, context: StepContext<ImportInput>): Promise<void> {
  const { input } = context.operation;
  const image = await arrivingImage(context);
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
    await storeArrived(deps, context, await receive(deps, context, opened));
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

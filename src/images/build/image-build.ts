import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { z } from "zod";
import type { OperationKind, StepContext } from "../../operations/operation-kind.ts";
import {
  type ArrivalDeps,
  arrivingImage,
  imageIdOf,
  recordEnd,
  recordReady,
  storeArrived,
} from "../image-arrival.ts";
import { getImage } from "../image-store.ts";
import { type ReceiverDeps, receiveImage } from "../receive-image.ts";
import { BuildRecipe } from "./build-recipe.ts";
import type { BuildCall, ImageBuilder } from "./image-builder.ts";

/** The operation that builds a Debian image on the control plane. It touches no host, so any worker may run it. */

const BuildInput = z.object({ imageId: z.string(), recipe: BuildRecipe });
export type BuildInput = z.output<typeof BuildInput>;

export interface BuildDeps extends ReceiverDeps, ArrivalDeps {
  readonly builder: ImageBuilder;
  /** How many are built at once in one worker. */
  readonly atOnce: number;
}

// Each step makes again what an earlier one made in a process that is gone: so each has the time for all.
const STEP_LIMIT_SECONDS = 3 * 3600;
const DEADLINE_SECONDS = 24 * 3600;
const MAX_ATTEMPTS = 3;

export function imageBuildKind(deps: BuildDeps): OperationKind<BuildInput> {
  const { builder } = deps;
  const limits = { timeoutSeconds: STEP_LIMIT_SECONDS, maxAttempts: MAX_ATTEMPTS };
  return {
    name: "image.build",
    input: BuildInput,
    deadlineSeconds: DEADLINE_SECONDS,
    perWorker: deps.atOnce,
    steps: [
      {
        name: "bootstrap",
        ...limits,
        run: async (context) => {
          await arrivingImage(context);
          await builder.bootstrap(callOf(context, true));
          return undefined;
        },
        undo: (context) => takeBack(deps, context),
      },
      {
        name: "make-disk",
        ...limits,
        run: async (context) => {
          await arrivingImage(context);
          await builder.makeDisk(callOf(context));
          return undefined;
        },
      },
      {
        name: "store",
        ...limits,
        run: async (context) => {
          await store(deps, context);
          return undefined;
        },
        record: recordReady,
      },
    ],
    onEnd: (tx, operation, outcome) => recordEnd(deps, tx, operation, outcome),
  };
}

function callOf(context: StepContext<BuildInput>, tellsProgress = false): BuildCall {
  const { operation, signal } = context;
  const { imageId, recipe } = operation.input;
  return {
    ...{ operationId: operation.id, imageId, recipe, signal },
    onProgress: (done, total) => {
      if (tellsProgress) context.progress(done, total, "items");
    },
  };
}

function labelOf({ imageId }: BuildInput): string {
  return `build-${imageId}`;
}

async function store(deps: BuildDeps, context: StepContext<BuildInput>): Promise<void> {
  const { builder } = deps;
  const { operation, signal } = context;
  const image = await arrivingImage(context);
  // Not null where it was killed between the content's commit and the step's record.
  if (image.content === null) {
    await deps.files.discardLabelled(labelOf(operation.input));
    const disk = await builder.disk(callOf(context));
    const { size } = await stat(disk);
    const received = await receiveImage(deps, {
      label: labelOf(operation.input),
      claim: { kind: "disk", format: "qcow2" },
      sha256: null,
      source: createReadStream(disk, { highWaterMark: 1024 * 1024 }),
      announcedBytes: size,
      signal,
      onProgress: (done) => {
        context.progress(done, size, "bytes");
      },
    });
    await storeArrived(deps, context, received);
  }
  await builder.clear(operation.id);
}

/** Removes what was built so far; and the log, if the image was deleted: else it says what went wrong. */
async function takeBack(
  { builder, files }: BuildDeps,
  { operation, read }: Pick<StepContext<BuildInput>, "operation" | "read">,
): Promise<void> {
  await builder.clear(operation.id);
  await files.discardLabelled(labelOf(operation.input));
  const image = await read((db) => getImage(db, imageIdOf(operation.input)));
  if (image === null) await builder.logs.remove(operation.input.imageId);
}

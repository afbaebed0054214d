import type { ErrorBody } from "../lib/errors.ts";
import type { ImageId, ProjectId } from "../lib/ids.ts";
import type { BuildRecipe } from "./build/build-recipe.ts";
import type { ImageFormat, ImageKind } from "./image-format.ts";

export const IMAGE_STATES = ["importing", "building", "ready", "failed"] as const;
export type ImageState = (typeof IMAGE_STATES)[number];

/** What an image's content was found to be, once it is there. Sizes in bytes. */
export interface ImageContentFacts {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** null for a kernel and an initrd. */
  readonly format: ImageFormat | null;
  /** The size that a guest sees; null for a kernel and an initrd. */
  readonly virtualSizeBytes: number | null;
}

/** An image as the rest of the program sees it. */
export interface ImageRecord {
  readonly id: ImageId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly kind: ImageKind;
  /** What the client said until it is there, then what was found. */
  readonly format: ImageFormat | null;
  readonly state: ImageState;
  readonly error: ErrorBody | null;
  /** Set from the moment the content is in the store. */
  readonly content: ImageContentFacts | null;
  /** Where it was imported from, without the query; null for an upload and a build. */
  readonly sourceUrl: string | null;
  /** What it is built from; null for an upload and an import. */
  readonly build: BuildRecipe | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

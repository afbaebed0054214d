import type { Sql } from "../db/client.ts";
import { DroverError } from "../lib/errors.ts";
import type { ImageId } from "../lib/ids.ts";
import type { ImageFiles } from "./image-files.ts";
import type { ImageContentFacts } from "./image-record.ts";
import { getImage } from "./image-store.ts";
import { rawContent } from "./raw-content.ts";

/** The content of an image, to be brought to a host. */
export interface OpenedImage extends ImageContentFacts {
  /**
   * The bytes from the beginning; the file is opened when the first part is asked for. For one reading. A chunk holds
   * until six more have been asked for.
   */
  readonly content: AsyncIterable<Uint8Array>;
}

/** How the rest of the program reads images. */
export interface ImageContents {
  /**
   * @throws {DroverError} `not_found` when the image is gone, `image_not_ready` when it has no content yet, and
   * `internal` when its file is missing: somebody took it out of the store by hand.
   */
  open(imageId: ImageId): Promise<OpenedImage>;
  /**
   * A disk as a guest sees it, for volumes that can hold nothing else; its size is the virtual one. What reads it also
   * throws what `rawContent` does. The signal ends the unpacking.
   * @throws {DroverError} as `open`
   */
  openRaw(imageId: ImageId, signal: AbortSignal): Promise<OpenedImage>;
}

export function createImageContents(db: Sql, files: ImageFiles): ImageContents {
  const open = async (imageId: ImageId): Promise<OpenedImage> => {
    const image = await getImage(db, imageId);
    if (image === null) throw new DroverError("not_found", `There is no image ${imageId} any more.`);
    const { content } = image;
    if (image.state !== "ready" || content === null) {
      throw new DroverError("image_not_ready", `The image "${image.name}" is ${image.state}, not ready.`);
    }
    if ((await files.sizeOf(content.sha256)) !== content.sizeBytes) throw damaged(image.name, content.sha256);
    return { ...content, content: files.read(content.sha256) };
  };
  return {
    open,
    async openRaw(imageId, signal) {
      const opened = await open(imageId);
      const { format, virtualSizeBytes, sha256 } = opened;
      if (format !== "qcow2" || virtualSizeBytes === null) return opened;
      const content = rawContent({ source: files.pathOf(sha256), scratch: files.newPath("raw"), signal });
      return { ...opened, format: "raw", sizeBytes: virtualSizeBytes, content };
    },
  };
}

function damaged(name: string, sha256: string): DroverError {
  return new DroverError(
    "internal",
    `The file of the image "${name}" (${sha256}) is missing from the image store or has another size. ` +
      "Upload the same file once more under another name to repair it.",
    { retry: "never" },
  );
}

import { timestamp } from "../http/schemas.ts";
import type { ImageRecord } from "./image-record.ts";
import type { Image } from "./image-schemas.ts";

/** An image as the API shows it. */
export function toImage(image: ImageRecord, project: string, operations: readonly string[]): Image {
  const { content } = image;
  return {
    id: image.id,
    name: image.name,
    project,
    labels: { ...image.labels },
    generation: image.generation,
    createdAt: timestamp(image.createdAt),
    updatedAt: timestamp(image.updatedAt),
    kind: image.kind,
    format: image.format,
    state: image.state,
    error: image.error === null ? null : { ...image.error },
    // Until it is ready the content counts as not there, whatever is on the disk already.
    sizeBytes: image.state === "ready" ? (content?.sizeBytes ?? null) : null,
    virtualSizeBytes: image.state === "ready" ? (content?.virtualSizeBytes ?? null) : null,
    sha256: image.state === "ready" ? (content?.sha256 ?? null) : null,
    source: sourceOf(image),
    operations: [...operations],
  };
}

function sourceOf({ sourceUrl, build }: ImageRecord): Image["source"] {
  if (build !== null) return { kind: "debootstrap", ...build, packages: [...build.packages] };
  return sourceUrl === null ? { kind: "upload" } : { kind: "url", url: sourceUrl };
}

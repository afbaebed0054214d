import type { NewEvent } from "../events/event-store.ts";
import type { OperationId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { ImageRecord } from "./image-record.ts";

export type ImageEventType =
  | "image.created"
  | "image.ready"
  | "image.failed"
  | "image.updated"
  | "image.deleted";

/** The event of a change to an image. */
export function imageEvent(
  type: ImageEventType,
  image: ImageRecord,
  operationId: OperationId | null = null,
  data: JsonObject = {},
): NewEvent {
  const content: JsonObject =
    image.content === null ? {} : { sha256: image.content.sha256, sizeBytes: image.content.sizeBytes };
  return {
    type,
    subject: { kind: "image", id: image.id, name: image.name },
    projectId: image.projectId,
    operationId,
    data: { kind: image.kind, state: image.state, ...content, ...data },
  };
}

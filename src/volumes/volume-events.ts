import type { NewEvent } from "../events/event-store.ts";
import type { OperationId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import type { VolumeDetails } from "./volume-record.ts";

export type VolumeEventType =
  | "volume.created"
  | "volume.ready"
  | "volume.failed"
  | "volume.updated"
  | "volume.resized"
  | "volume.attached"
  | "volume.detached"
  | "volume.orphaned"
  | "volume.deleted";

/** The event of a change to a volume. */
export function volumeEvent(
  type: VolumeEventType,
  { id, ownName, projectId, hostName, pool }: VolumeDetails,
  operationId: OperationId | null = null,
  data: JsonObject = {},
): NewEvent {
  const subject = { kind: "volume", id, name: ownName };
  return { type, subject, projectId, operationId, data: { host: hostName, pool, ...data } };
}

import type { Database, Tx } from "../db/client.ts";
import { foreignKeyViolation } from "../db/database-errors.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { DroverError } from "../lib/errors.ts";
import { cancelOperation } from "../operations/operation-cancel.ts";
import { unfinishedOperations } from "../operations/operation-queue.ts";
import { imageEvent } from "./image-events.ts";
import type { ImageRecord } from "./image-record.ts";
import { type ImageServiceDeps, noImage, resolveImage } from "./image-service.ts";
import { deleteImageRow, lockContent, lockImage, vmsUsingImage, volumesFillingFrom } from "./image-store.ts";

/**
 * Deletes an image; one that is still imported or built is cancelled first. The content goes with its last image. Whether VMs
 * use it says their foreign key: a VM that is created meanwhile either comes first, and the delete is refused, or
 * finds no image.
 * Throws `not_found`, `precondition_failed`, `in_use`.
 */
export async function deleteImage(
  deps: ImageServiceDeps,
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<void> {
  const { id } = await resolveImage(tx, project.id, idOrName);
  // Lanes are locked before rows, everywhere.
  for (const operation of await unfinishedOperations(tx, { kind: "image", id })) {
    if (operation.mode === "exclusive") await cancelOperation(tx, deps.kinds, operation.id);
  }
  const image = await lockImage(tx, project.id, id);
  if (image === null) throw noImage(idOrName);
  requireMatch(ifMatch, image.generation);
  // Taken before the row goes: an upload of the same content that waits for it then does not wait for the name.
  if (image.content !== null) await lockContent(tx, image.content.sha256);
  await deleteImageRow(tx, id).catch(async (error: unknown) => {
    throw foreignKeyViolation(error) === null ? error : await inUse(deps.database, image);
  });
  await appendEvent(tx, imageEvent("image.deleted", image));
  if (image.content !== null) deps.collector.collect(image.content.sha256);
  if (image.build !== null) deps.collector.collectLog(id);
}

const USERS_NAMED = 10;

/** Asked outside of the transaction, which the violation has ended. */
async function inUse(database: Database, image: ImageRecord): Promise<DroverError> {
  const users = await vmsUsingImage(database, image.id, USERS_NAMED + 1);
  if (users.length === 0) {
    const filling = await volumesFillingFrom(database, image.id, USERS_NAMED);
    const message = `The image "${image.name}" is being copied to the volumes ${filling.join(", ")}. Wait for that first.`;
    return new DroverError("in_use", message, { details: { volumes: filling } });
  }
  const named = users.slice(0, USERS_NAMED);
  const more = users.length > USERS_NAMED ? " and others" : "";
  return new DroverError(
    "in_use",
    `The image "${image.name}" is used by the VMs ${named.join(", ")}${more}. Delete them first.`,
    { details: { vms: named } },
  );
}

import { isDeepStrictEqual } from "node:util";
import type { Database } from "../db/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { type LabelRequirement, Labels, patchLabels } from "../http/labels.ts";
import { type PageRequest, pageWindow, parseOrderBy, requireTimeKey, toPage } from "../http/pagination.ts";
import { DroverError } from "../lib/errors.ts";
import type { ProjectId, VolumeId } from "../lib/ids.ts";
import { unfinishedOperationsOf } from "../operations/operation-subject-store.ts";
import { volumeEvent } from "./volume-events.ts";
import type { VolumeDetails } from "./volume-record.ts";
import type { PatchVolumeBody, Volume } from "./volume-schemas.ts";
import {
  findVolume,
  getVolume,
  listVolumes,
  lockVolume,
  updateVolumeSettings,
  type VolumeFilter,
} from "./volume-store.ts";
import { toVolume } from "./volume-view.ts";

export interface ListVolumesRequest extends PageRequest, Omit<VolumeFilter, "labels"> {
  readonly labelSelector?: readonly LabelRequirement[] | undefined;
  readonly orderBy: "createdAt" | "-createdAt";
}

export async function pageOfVolumes(
  db: Database,
  project: ProjectRef,
  request: ListVolumesRequest,
): Promise<{ items: Volume[]; nextPageToken?: string }> {
  const { pageSize, pageToken, orderBy, labelSelector: labels, ...filters } = request;
  const binding = { list: `volumes/${project.id}`, orderBy, filters: { ...filters, labels } };
  const { after, limit } = requireTimeKey(pageWindow(binding, { pageSize, pageToken }));
  const from = after === null ? null : { value: String(after.value), id: after.id };
  const { direction } = parseOrderBy<"createdAt">(orderBy);
  const rows = await listVolumes(db, project.id, { ...filters, labels }, direction, { after: from, limit });
  const operations = await unfinishedOperationsOf(
    db,
    "volume",
    rows.map(({ id }) => id),
  );
  return toPage(
    binding,
    request,
    rows,
    ({ createdAt, id }) => ({ value: createdAt.toISOString(), id }),
    (row) => toVolume(row, project.name, operations.get(row.id) ?? []),
  );
}

/** Throws `not_found`. */
export async function volumeNamed(db: Sql, projectId: ProjectId, idOrName: string): Promise<VolumeDetails> {
  const volume = await findVolume(db, projectId, idOrName);
  if (volume !== null) return volume;
  throw new DroverError(
    "not_found",
    `There is no volume "${idOrName}" in this project. List them with GET /v1/volumes.`,
  );
}

/** A volume as the API shows it now; null when it is gone. */
export async function viewVolume(db: Sql, project: ProjectRef, id: VolumeId): Promise<Volume | null> {
  const volume = await getVolume(db, id);
  if (volume === null) return null;
  const operations = await unfinishedOperationsOf(db, "volume", [id]);
  return toVolume(volume, project.name, operations.get(id) ?? []);
}

/** A volume as the API shows it now. Throws `not_found`. */
export async function changedVolume(tx: Sql, project: ProjectRef, id: VolumeId): Promise<Volume> {
  const view = await viewVolume(tx, project, id);
  if (view === null) throw new DroverError("not_found", `The volume ${id} was deleted meanwhile.`);
  return view;
}

/** Changes labels and the delete policy. Throws `not_found`, `precondition_failed`, `invalid_request`. */
export async function patchVolume(
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  patch: PatchVolumeBody,
  ifMatch: IfMatch | null,
): Promise<Volume> {
  const { id } = await volumeNamed(tx, project.id, idOrName);
  const volume = await lockVolume(tx, id);
  if (volume === null) throw new DroverError("not_found", `The volume ${id} was deleted meanwhile.`);
  requireMatch(ifMatch, volume.generation);
  const parsed = Labels.safeParse(patchLabels(volume.labels, patch.labels ?? {}));
  if (!parsed.success) {
    const message = parsed.error.issues[0]?.message ?? "not valid";
    throw new DroverError("invalid_request", `The labels would not be valid: ${message}.`, {
      violations: [{ pointer: "/labels", message }],
    });
  }
  const labels = parsed.data;
  const deletePolicy = patch.deletePolicy ?? volume.deletePolicy;
  const isSame = deletePolicy === volume.deletePolicy && isDeepStrictEqual(labels, { ...volume.labels });
  // An orphan is taken into care by naming what is to become of it, be it what stood there already.
  if (!isSame || (volume.orphanSince !== null && patch.deletePolicy !== undefined)) {
    await updateVolumeSettings(tx, id, { labels, deletePolicy });
    await appendEvent(tx, volumeEvent("volume.updated", volume, null, { labels, deletePolicy }));
  }
  return await changedVolume(tx, project, id);
}

import type { Tx } from "../db/client.ts";
import { foreignKeyViolation, uniqueViolation } from "../db/database-errors.ts";
import { appendEvent } from "../events/event-store.ts";
import { lockHost } from "../hosts/host-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import { type CachedContent, cachedContent } from "../image-cache/host-image.ts";
import { useHostImage } from "../image-cache/host-image-store.ts";
import { bringContents } from "../image-cache/image-cache.ts";
import { findImage } from "../images/image-store.ts";
import { DroverError } from "../lib/errors.ts";
import {
  type HostId,
  type HostImageId,
  type ImageId,
  type InstallationId,
  newId,
  type OperationId,
  type ProjectId,
  type VolumeId,
} from "../lib/ids.ts";
import { GIB } from "../lib/units.ts";
import type { Subject } from "../operations/operation-kind.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue, unfinishedOperations } from "../operations/operation-queue.ts";
import { choosePool } from "./choose-pool.ts";
import { volumeEvent } from "./volume-events.ts";
import { volumeName } from "./volume-names.ts";
import { FREE_ROLE, type VolumeDetails, type VolumeSource, volumeLabel } from "./volume-record.ts";
import type { CreateVolumeBody } from "./volume-schemas.ts";
import { volumeNamed } from "./volume-service.ts";
import { insertVolume, lockVolume, type PoolCandidate, poolCandidates } from "./volume-store.ts";

export interface VolumeChangeDeps {
  readonly kinds: KindRegistry;
  readonly installationId: InstallationId;
  /** What the copies of images in a host's pool may take. */
  readonly imageCacheBytes: number;
}

/** Who asks for a change. */
export interface VolumeRequest {
  readonly project: ProjectRef;
  readonly actor: string;
  readonly requestId: string;
}

export interface QueuedVolume {
  readonly id: VolumeId;
  readonly operationId: OperationId;
}

/** What a volume is to hold, and how. */
export interface PlannedContent {
  readonly imageId: ImageId | null;
  /** What the image holds: the volume is made of the host's copy of it. */
  readonly cached: CachedContent | null;
  readonly source: VolumeSource;
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
  /** What it takes of its pool at once. */
  readonly neededBytes: number;
}

/**
 * Writes a volume that is to be made and queues that. Throws DroverError `invalid_request`, `image_not_ready`,
 * `no_placement`, `name_taken`.
 */
export async function createVolume(
  tx: Tx,
  deps: VolumeChangeDeps,
  request: VolumeRequest,
  body: CreateVolumeBody,
): Promise<QueuedVolume> {
  const { kinds, installationId } = deps;
  const { project, actor, requestId } = request;
  const id = newId<VolumeId>();
  const image = body.source.kind === "image" ? body.source.image : undefined;
  const content = await planContent(tx, project.id, { image, sizeGib: body.sizeGib, format: body.format });
  const { hostId, host, pool } = await poolFor(tx, body, content.neededBytes);
  const { imageId, source, format, capacityBytes } = content;
  const name = volumeName(installationId, id, "volume", format);
  const copy = await copyFor(tx, deps, request, { hostId, pool }, content);
  const written = insertVolume(tx, {
    ...{ id, projectId: project.id, ownName: body.name, labels: body.labels, hostId, pool, name },
    ...{ role: FREE_ROLE, format, capacityBytes, deletePolicy: body.deletePolicy, source, imageId },
  });
  await written.catch((error: unknown) => {
    throw refusalOf(error, body.name);
  });
  if (copy.id !== null) await useHostImage(tx, id, copy.id);
  const operation = await enqueue(
    tx,
    {
      kind: kinds.get("volume.create"),
      input: { volumeId: id, imageId },
      subjects: [{ kind: "volume", id, mode: "exclusive" }, ...copy.subjects],
      targets: [{ kind: "volume", id, name: body.name }],
      hostId,
      hosts: [host],
      projectId: project.id,
      actor,
      requestId,
    },
    kinds,
  );
  const volume = await lockVolume(tx, id);
  if (volume !== null) await appendEvent(tx, volumeEvent("volume.created", volume, operation.id));
  return { id, operationId: operation.id };
}

export interface PlannedCopy {
  readonly id: HostImageId | null;
  /** What the making of the volume waits for. */
  readonly subjects: readonly Subject[];
}

/** The host's copy of what a volume is to hold, brought there first where it is not. Locks the host's row. */
export async function copyFor(
  tx: Tx,
  { kinds, imageCacheBytes: limitBytes }: Omit<VolumeChangeDeps, "installationId">,
  { project, actor, requestId }: VolumeRequest,
  place: { readonly hostId: HostId; readonly pool: string },
  { cached }: Pick<PlannedContent, "cached">,
): Promise<PlannedCopy> {
  if (cached === null) return { id: null, subjects: [] };
  await lockHost(tx, place.hostId);
  const request = { projectId: project.id, actor, requestId };
  const brought = await bringContents(tx, { kinds, limitBytes }, request, place, [cached]);
  return { id: brought?.ids[0] ?? null, subjects: brought?.subjects ?? [] };
}

function refusalOf(error: unknown, name: string): unknown {
  if (uniqueViolation(error) !== null)
    return new DroverError("name_taken", `There is a volume "${name}" already. Choose another name.`, {
      cause: error,
    });
  if (foreignKeyViolation(error) === null) return error;
  return new DroverError(
    "conflict",
    "The image of this volume was just deleted. List the images with GET /v1/images.",
    { cause: error },
  );
}

/** What a new volume holds: nothing, or an image of kind disk. Throws `invalid_request`, `image_not_ready`. */
export async function planContent(
  tx: Tx,
  projectId: ProjectId,
  asked: {
    readonly image?: string | undefined;
    readonly sizeGib?: number | undefined;
    readonly format?: VolumeFormat | undefined;
  },
  pointers: { readonly image: string; readonly size: string } = {
    image: "/source/image",
    size: "/sizeGib",
  },
): Promise<PlannedContent> {
  const askedBytes = asked.sizeGib === undefined ? null : asked.sizeGib * GIB;
  if (asked.image === undefined) {
    if (askedBytes === null) throw wrong(pointers.size, "an empty volume needs a size");
    const format = asked.format ?? "qcow2";
    return {
      ...{ imageId: null, cached: null, source: { kind: "empty" }, format, capacityBytes: askedBytes },
      neededBytes: format === "qcow2" ? 0 : askedBytes,
    };
  }
  const image = await findImage(tx, projectId, asked.image);
  if (image === null) throw wrong(pointers.image, `there is no image "${asked.image}"`);
  if (image.kind !== "disk")
    throw wrong(pointers.image, `image "${image.name}" is of kind ${image.kind}, disk is needed`);
  if (image.state !== "ready" || image.content === null) {
    const message = `Image "${image.name}" cannot be used: it is ${image.state}, not ready.`;
    throw new DroverError("image_not_ready", message);
  }
  const format = image.format ?? "raw";
  if (asked.format !== undefined && asked.format !== format)
    throw wrong("/format", `image "${image.name}" is ${format}: leave the format out`);
  const least = image.content.virtualSizeBytes ?? 0;
  if (askedBytes !== null && askedBytes < least)
    throw wrong(pointers.size, `image "${image.name}" needs ${Math.ceil(least / GIB)} GiB at least`);
  const capacityBytes = askedBytes ?? least;
  const source: VolumeSource = { kind: "image", image: image.id };
  const cached = cachedContent(image);
  return { imageId: image.id, cached, source, format, capacityBytes, neededBytes: capacityBytes };
}

async function poolFor(
  tx: Tx,
  asked: Pick<CreateVolumeBody, "host" | "pool">,
  neededBytes: number,
): Promise<PoolCandidate> {
  const { host, pool } = { host: asked.host ?? null, pool: asked.pool ?? null };
  const candidates = await poolCandidates(tx, host);
  const chosen = choosePool({ pool, neededBytes }, candidates);
  if (!isRefused(chosen)) return chosen;
  const reasons = chosen.map(({ host: on, pool: name, message }) => `${on}/${name}: ${message}`);
  const where = `${pool === null ? "pool" : `pool "${pool}"`}${host === null ? "" : ` on host "${host}"`}`;
  const message =
    reasons.length === 0
      ? `There is no ${where}. List the pools with GET /v1/pools.`
      : `No ${where} can take the volume. ${reasons.slice(0, 5).join("; ")}.`;
  throw new DroverError("no_placement", message, { details: { pools: chosen.slice(0, 50) } });
}

function isRefused(
  chosen: PoolCandidate | readonly { readonly message: string }[],
): chosen is readonly { readonly host: string; readonly pool: string; readonly message: string }[] {
  return Array.isArray(chosen);
}

/**
 * Queues the delete of a volume; a second one joins the first. Throws `not_found`, `precondition_failed`, `in_use`
 * while it is attached.
 */
export async function deleteVolume(
  tx: Tx,
  { kinds }: Pick<VolumeChangeDeps, "kinds">,
  { project, actor, requestId }: VolumeRequest,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<QueuedVolume> {
  const volume = await volumeNamed(tx, project.id, idOrName);
  requireMatch(ifMatch, volume.generation);
  requireFree(volume);
  const subject = { kind: "volume", id: volume.id } as const;
  const running = (await unfinishedOperations(tx, subject)).find(({ kind }) => kind === "volume.delete");
  if (running !== undefined) return { id: volume.id, operationId: running.id };
  const operation = await enqueue(
    tx,
    {
      kind: kinds.get("volume.delete"),
      input: { volumeId: volume.id },
      subjects: [{ ...subject, mode: "exclusive" }],
      targets: [{ ...subject, name: volume.ownName ?? volume.id }],
      hosts: [volume.hostName],
      projectId: project.id,
      actor,
      requestId,
    },
    kinds,
  );
  const locked = await lockVolume(tx, volume.id);
  if (locked === null) throw new DroverError("not_found", `The volume ${volume.id} was deleted meanwhile.`);
  requireMatch(ifMatch, locked.generation);
  requireFree(locked);
  return { id: volume.id, operationId: operation.id };
}

/** Throws `in_use`. */
function requireFree(volume: VolumeDetails): void {
  const { vm, role } = volume;
  if (vm === null) return;
  const instead = role.startsWith("disk:")
    ? `Detach it first: DELETE /v1/vms/${vm.name}/disks/${role.slice("disk:".length)}.`
    : "It goes with the VM.";
  throw new DroverError(
    "in_use",
    `The volume ${volumeLabel(volume)} belongs to VM "${vm.name}". ${instead}`,
    {
      details: { vm: vm.name },
    },
  );
}

function wrong(pointer: string, message: string): DroverError {
  return new DroverError("invalid_request", `${pointer}: ${message}.`, {
    violations: [{ pointer, message }],
  });
}

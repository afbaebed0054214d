import type { Sql, Tx } from "../db/transaction.ts";
import { findHost } from "../hosts/host-store.ts";
import { timestamp } from "../http/schemas.ts";
import { getImage } from "../images/image-store.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type HostId, type HostImageId, type ImageId, isUuid, type OperationId } from "../lib/ids.ts";
import type { CachedContent, HostImage } from "./host-image.ts";
import type { HostImageView } from "./host-image-schemas.ts";
import { getHostImage, hostImagesOf } from "./host-image-store.ts";
import { bringContents, type CacheRequest, evictUnused, type ImageCacheDeps } from "./image-cache.ts";

export type HostImageRequest = Pick<CacheRequest, "actor" | "requestId">;

interface Queued {
  readonly hostImage: HostImageView;
  readonly operationId: OperationId;
}

/** The copies on a host, by pool, the last used first. Throws `not_found`. */
export async function imagesOnHost(db: Sql, host: string): Promise<HostImageView[]> {
  return (await hostImagesOf(db, await hostNamed(db, host))).map(toView);
}

export async function viewHostImage(db: Sql, id: string): Promise<HostImageView | null> {
  const copy = await getHostImage(db, asId<HostImageId>(id));
  return copy === null ? null : toView(copy);
}

/**
 * Queues that an image is brought to a pool of a host. Throws `not_found`, `image_not_ready`, and
 * `capability_unsupported` where the pool keeps no copies.
 */
export async function bringImage(
  tx: Tx,
  deps: ImageCacheDeps,
  request: HostImageRequest,
  host: string,
  wish: { readonly image: string; readonly pool: string },
): Promise<Queued> {
  const hostId = await hostNamed(tx, host);
  const content = await contentOf(tx, asId<ImageId>(wish.image));
  const place = { hostId, pool: wish.pool };
  const asked = { ...request, projectId: null };
  const brought = await bringContents(tx, deps, asked, place, [content], { evenIfReady: true });
  const id = brought?.ids[0];
  if (id === undefined) {
    throw new DroverError(
      "capability_unsupported",
      `Host "${host}" has no pool "${wish.pool}" of type dir, which is what keeps images. List them with GET /v1/hosts/${host}/pools.`,
    );
  }
  return await queued(tx, id);
}

/** Queues that a copy is removed. Throws `not_found`, `in_use`, `invalid_state`. */
export async function evictImage(
  tx: Tx,
  deps: ImageCacheDeps,
  request: HostImageRequest,
  { host, image }: { readonly host: string; readonly image: string },
): Promise<Queued> {
  const hostId = await hostNamed(tx, host);
  const id = isUuid(image) ? asId<HostImageId>(image) : null;
  const copy = id === null ? null : await getHostImage(tx, id);
  if (copy?.hostId !== hostId) {
    throw new DroverError(
      "not_found",
      `Host "${host}" has no copy "${image}" of an image. List them with GET /v1/hosts/${host}/images.`,
    );
  }
  if ((await evictUnused(tx, deps, copy.id, { ...request, projectId: null })) === null) throw refusal(copy);
  return await queued(tx, copy.id);
}

function refusal({ state, uses, operationId }: HostImage): DroverError {
  if (uses > 0) {
    return new DroverError(
      "in_use",
      `${uses} volumes are made of this copy or read from it. Delete their VMs first.`,
    );
  }
  const message =
    state === "evicting"
      ? `It is being removed already by operation ${operationId ?? ""}.`
      : `It is on its way to the host: cancel operation ${operationId ?? ""} first.`;
  return new DroverError("invalid_state", message);
}

async function queued(tx: Tx, id: HostImageId): Promise<Queued> {
  const copy = await getHostImage(tx, id);
  if (copy === null || copy.operationId === null) throw new Error("what was queued has no operation");
  return { hostImage: toView(copy), operationId: copy.operationId };
}

async function hostNamed(db: Sql, idOrName: string): Promise<HostId> {
  const host = await findHost(db, idOrName);
  if (host !== null) return host.id;
  throw new DroverError("not_found", `There is no host "${idOrName}". List them with GET /v1/hosts.`);
}

async function contentOf(db: Sql, id: ImageId): Promise<CachedContent> {
  const image = await getImage(db, id);
  if (image === null) throw new DroverError("not_found", `There is no image ${id}.`);
  if (image.state !== "ready" || image.content === null) {
    throw new DroverError("image_not_ready", `Image "${image.name}" is ${image.state}, not ready.`);
  }
  const { sha256, sizeBytes, format, virtualSizeBytes } = image.content;
  return { sha256, sizeBytes, format: format ?? "raw", capacityBytes: virtualSizeBytes ?? sizeBytes };
}

function toView(copy: HostImage): HostImageView {
  const { id, pool, sha256, format, sizeBytes, state, filledBytes, uses, operationId, error } = copy;
  return {
    ...{ id, pool, sha256, format, sizeBytes, state, filledBytes },
    volumeCount: uses,
    operation: operationId,
    error: error === null ? null : { ...error },
    lastUsedAt: timestamp(copy.lastUsedAt),
  };
}

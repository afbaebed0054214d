import { z } from "zod";
import type { Database } from "../db/client.ts";
import type { Api } from "../http/route.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";
import { BringImageBody, HostImageSchema } from "./host-image-schemas.ts";
import { bringImage, evictImage, imagesOnHost, viewHostImage } from "./host-image-service.ts";
import type { ImageCacheDeps } from "./image-cache.ts";

export interface HostImageRouteDeps extends ImageCacheDeps {
  readonly db: Database;
}

const HostImageAnswer = z
  .strictObject({ hostImage: HostImageSchema, operation: OperationSchema })
  .meta({ id: "HostImageAnswer" });
const BASE = { access: "installation", tag: "Hosts" } as const;

/** What hosts keep of images. */
export function registerHostImageRoutes(api: Api, deps: HostImageRouteDeps): void {
  const { db } = deps;
  const refresh = async ({ hostImage }: { readonly hostImage: { readonly id: string } }) => {
    const fresh = await viewHostImage(db, hostImage.id);
    return fresh === null ? null : { body: { hostImage: fresh } };
  };
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts/:host/images",
    operationId: "listHostImages",
    summary: "List the images that a host keeps",
    description:
      "A VM's disks are made of the copy in its host's pool, which is brought there once. What no volume needs goes when its image is deleted, or when there are more than `DROVER_HOST_IMAGE_CACHE_GIB` in a pool, the least recently used first.",
    responses: { 200: z.strictObject({ items: z.array(HostImageSchema) }).meta({ id: "HostImageList" }) },
    errors: ["not_found"],
    handle: async ({ params }) => ({ status: 200, body: { items: await imagesOnHost(db, params.host) } }),
  });
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/hosts/:host/images",
    operationId: "bringImageToHost",
    summary: "Bring an image to a host",
    description: "Before a VM needs it. One that is there already is left as it is.",
    body: BringImageBody,
    responses: { 202: HostImageAnswer },
    errors: ["not_found", "image_not_ready", "capability_unsupported"],
    change: async (tx, { params, body, actor, requestId }) => {
      const { hostImage, operationId } = await bringImage(tx, deps, { actor, requestId }, params.host, body);
      return { status: 202, body: { hostImage }, operation: operationId };
    },
    refresh,
  });
  api.change({
    ...BASE,
    method: "DELETE",
    path: "/v1/hosts/:host/images/:image",
    operationId: "evictImageFromHost",
    summary: "Remove the copy of an image from a host",
    description: "`image` is the copy's id, as the list shows it. Refused while volumes need it.",
    responses: { 202: HostImageAnswer },
    errors: ["not_found", "in_use", "invalid_state"],
    change: async (tx, { params, actor, requestId }) => {
      const { hostImage, operationId } = await evictImage(tx, deps, { actor, requestId }, params);
      return { status: 202, body: { hostImage }, operation: operationId };
    },
    refresh,
  });
}

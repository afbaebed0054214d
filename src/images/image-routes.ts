import { Readable } from "node:stream";
import { z } from "zod";
import type { Outgoing } from "../http/change.ts";
import type { Exchange } from "../http/route.ts";
import { type Api, type Call, NoContent } from "../http/route.ts";
import { Name, queryInteger } from "../http/schemas.ts";
import { invalidRequest, violationsOf } from "../http/violations.ts";
import { MIB } from "../lib/units.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";
import { deleteImage } from "./image-delete.ts";
import {
  CreateImageBody,
  ImagePage,
  ImageSchema,
  listImagesQuery,
  PatchImageBody,
  uploadQuery,
} from "./image-schemas.ts";
import {
  createImage,
  type ImageServiceDeps,
  pageOfImages,
  patchImage,
  readBuildLog,
  readImage,
  requireAbility,
  requireDiskFormat,
} from "./image-service.ts";
import { type UploadDeps, uploadImage } from "./image-upload.ts";
import { toImage } from "./image-view.ts";
import { drainUpload, readUpload } from "./upload-body.ts";

export interface ImageRouteDeps extends ImageServiceDeps, UploadDeps {
  /** How long an upload may send nothing; 60 without. */
  readonly uploadIdleSeconds?: number;
}

const ImageAnswer = z
  .strictObject({ image: ImageSchema, operation: OperationSchema })
  .meta({ id: "ImageAnswer" });

const UPLOAD_DESCRIPTION = `The file's bytes as they are, streamed; of any size up to the service's limit.

    curl -T debian-12.qcow2 -H "Authorization: Bearer $TOKEN" "$URL/v1/images/debian-12/content?kind=disk"

The name in the path is the new image's. What the file is is found out from its content, and refused where it is not
what \`kind\` and \`format\` say. Safe to repeat: the same content under the same name is the same image (200 instead of
201), another content is refused (409). An upload that breaks off leaves nothing behind.`;

const CREATE_DESCRIPTION = `The image is there at once, in state \`importing\` or \`building\`; its operation fetches and checks the content, or
builds it. One that fails leaves the image in state \`failed\` with its error. To upload a file see \`uploadImage\`.

A build installs Debian with mmdebstrap on the control plane and makes a disk of it; see \`getImageLog\` for what it does.
Each worker builds one image at a time, the others wait. The control plane needs a few programs for it: where they are
missing, the request is refused with what to install.`;

/** Images belong to a project. */
export function registerImageRoutes(api: Api, deps: ImageRouteDeps): void {
  registerReads(api, deps);
  registerChanges(api, deps);
  registerLog(api, deps);
  api.raw({
    method: "PUT",
    path: "/v1/images/:image/content",
    access: "project",
    operationId: "uploadImage",
    tag: "Images",
    summary: "Upload an image",
    description: UPLOAD_DESCRIPTION,
    params: { image: z.string().meta({ description: "Name of the new image." }) },
    query: uploadQuery,
    upload: { contentTypes: ["application/octet-stream"], description: "The image file." },
    responses: { 200: ImageSchema, 201: ImageSchema },
    errors: ["name_taken", "image_invalid", "checksum_mismatch", "payload_too_large", "storage_full"],
    handle: async (call, exchange) => {
      try {
        return await receiveUpload(deps, call, exchange);
      } catch (error) {
        await endRefusedUpload(exchange);
        throw error;
      }
    },
  });
}

type UploadCall = Call<"project", "/v1/images/:image/content", typeof uploadQuery, undefined>;

async function receiveUpload(deps: ImageRouteDeps, call: UploadCall, exchange: Exchange): Promise<Outgoing> {
  const { params, project, query, signal } = call;
  requireDiskFormat(query, "format");
  const upload = {
    projectId: project.id,
    name: newName(params.image),
    claim: { kind: query.kind, format: query.format ?? null },
    sha256: query.sha256 ?? null,
    announcedBytes: announcedBytes(exchange),
    source: readUpload(exchange.upload, { idleSeconds: deps.uploadIdleSeconds ?? 60, signal }),
  };
  return await uploadImage(deps, upload, (sha256, work) =>
    exchange.commit(sha256, async (tx) => {
      const { image, created } = await work(tx);
      return {
        status: created ? 201 : 200,
        body: toImage(image, project.name, []),
        generation: image.generation,
        location: `/v1/images/${image.id}`,
      };
    }),
  );
}

/** Answers at once where the connection stays; a client that closes it must be done with sending first. */
async function endRefusedUpload({ headers, upload }: Exchange): Promise<void> {
  const drained = drainUpload(upload);
  if (/\bclose\b/i.test(String(headers["connection"] ?? ""))) await drained;
  else
    void drained.then((ended) => {
      if (!ended) upload.destroy();
    });
}

/** A path names what is there, so elsewhere a wrong name is a 404; here it names what is to be. */
function newName(text: string): string {
  const name = Name.safeParse(text);
  if (name.success) return name.data;
  throw invalidRequest(
    violationsOf(name.error, "params").map(({ message }) => ({ pointer: "image", message })),
  );
}

function announcedBytes({ headers }: Exchange): number | null {
  const length = headers["content-length"];
  return typeof length === "string" ? Number(length) : null;
}

function registerReads(api: Api, { database }: ImageRouteDeps): void {
  api.read({
    method: "GET",
    path: "/v1/images",
    access: "project",
    operationId: "listImages",
    tag: "Images",
    summary: "List images",
    query: listImagesQuery,
    responses: { 200: ImagePage },
    handle: async ({ project, query }) => ({
      status: 200,
      body: await pageOfImages(database, project, query),
    }),
  });

  api.read({
    method: "GET",
    path: "/v1/images/:image",
    access: "project",
    operationId: "getImage",
    tag: "Images",
    summary: "Get an image",
    responses: { 200: ImageSchema },
    errors: ["not_found"],
    handle: async ({ params, project }) => {
      const image = await readImage(database, project, params.image);
      return { status: 200, body: image, generation: image.generation };
    },
  });
}

function registerLog(api: Api, deps: ImageRouteDeps): void {
  api.raw({
    method: "GET",
    path: "/v1/images/:image/log",
    access: "project",
    operationId: "getImageLog",
    tag: "Images",
    summary: "Read the end of a build's log",
    description:
      "What the programs that build the image print, while they do it and afterwards. It is kept as long as the image, " +
      "its last MiB at most.",
    query: {
      maxBytes: queryInteger({ min: 1, max: MIB })
        .default(65_536)
        .meta({ description: "How many bytes of the end to give." }),
    },
    responses: {
      200: { description: "The end of the log.", content: { "text/plain": { schema: z.string() } } },
    },
    errors: ["not_found"],
    handle: async ({ params, query, project }) => {
      const bytes = await readBuildLog(deps, project.id, params.image, query.maxBytes);
      return {
        status: 200,
        headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" },
        body: Readable.from([Buffer.from(bytes)], { objectMode: false }),
      };
    },
  });
}

function registerChanges(api: Api, deps: ImageRouteDeps): void {
  api.change({
    method: "POST",
    path: "/v1/images",
    access: "project",
    operationId: "createImage",
    tag: "Images",
    summary: "Import an image from a URL, or build one",
    description: CREATE_DESCRIPTION,
    body: CreateImageBody,
    responses: { 202: ImageAnswer },
    errors: ["name_taken", "address_forbidden", "capability_unsupported"],
    prepare: ({ body }) => requireAbility(deps, body),
    change: async (tx, { body, project, actor, requestId }) => {
      const { image, operationId } = await createImage(deps, tx, { project, actor, requestId }, body);
      return { status: 202, body: { image }, operation: operationId, generation: image.generation };
    },
    refresh: async ({ image }, { project }) => {
      const now = await readImage(deps.database, project, image.id).catch(() => null);
      return now === null ? null : { body: { image: now }, generation: now.generation };
    },
  });

  api.change({
    method: "PATCH",
    path: "/v1/images/:image",
    access: "project",
    operationId: "updateImage",
    tag: "Images",
    summary: "Change an image's labels",
    body: PatchImageBody,
    ifMatch: true,
    responses: { 200: ImageSchema },
    errors: ["not_found", "precondition_failed"],
    change: async (tx, { body, ifMatch, params, project }) => {
      const image = await patchImage(tx, project, params.image, body, ifMatch);
      return { status: 200, body: image, generation: image.generation };
    },
  });

  api.change({
    method: "DELETE",
    path: "/v1/images/:image",
    access: "project",
    operationId: "deleteImage",
    tag: "Images",
    summary: "Delete an image",
    description: "Refused while a VM uses it. One that is imported or built is cancelled.",
    ifMatch: true,
    responses: { 204: NoContent },
    errors: ["not_found", "precondition_failed", "in_use"],
    change: async (tx, { ifMatch, params, project }) => {
      await deleteImage(deps, tx, project, params.image, ifMatch);
      return { status: 204, body: undefined };
    },
  });
}

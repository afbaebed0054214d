import type { Database, Tx } from "../db/client.ts";
import { uniqueViolation } from "../db/database-errors.ts";
import type { KeysetField } from "../db/keyset.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { type LabelRequirement, Labels, patchLabels } from "../http/labels.ts";
import { type PageRequest, pageWindow, parseOrderBy, toPage } from "../http/pagination.ts";
import { DroverError } from "../lib/errors.ts";
import { type ImageId, newId, type OperationId, type ProjectId } from "../lib/ids.ts";
import type { OperationKind } from "../operations/operation-kind.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue } from "../operations/operation-queue.ts";
import type { ImportAllowList } from "./address-guard.ts";
import type { BuildInput } from "./build/image-build.ts";
import type { ImageBuilder } from "./build/image-builder.ts";
import type { ContentCollector } from "./content-collector.ts";
import { imageEvent } from "./image-events.ts";
import type { ImportInput } from "./image-import.ts";
import type { ImageRecord } from "./image-record.ts";
import type { BuildSource, CreateImage, Image, ImportSource, PatchImage } from "./image-schemas.ts";
import {
  findImage,
  type ImageFilter,
  insertBuildingImage,
  insertImportingImage,
  listImages,
  lockImage,
  unfinishedImageOperations,
  updateImageLabels,
} from "./image-store.ts";
import { toImage } from "./image-view.ts";
import { displayUrl, parseImportUrl, refusalOfHost } from "./import-url.ts";

export interface ImageServiceDeps {
  readonly database: Database;
  readonly collector: Pick<ContentCollector, "collect" | "collectLog">;
  readonly kinds: KindRegistry;
  /** Made by `imageImportKind`; stands in `kinds` too. */
  readonly importKind: OperationKind<ImportInput>;
  /** Made by `imageBuildKind`; stands in `kinds` too. */
  readonly buildKind: OperationKind<BuildInput>;
  readonly builder: Pick<ImageBuilder, "check" | "logs">;
  readonly allow: ImportAllowList;
}

/** Who asks for a change, for operations and events. */
export interface Request {
  readonly project: ProjectRef;
  readonly actor: string;
  readonly requestId: string;
}

interface Queued {
  readonly image: Image;
  readonly operationId: OperationId;
}

/** Writes an image that is to be fetched or built, and queues that. Throws `name_taken`, `address_forbidden`. */
export async function createImage(
  deps: ImageServiceDeps,
  tx: Tx,
  request: Request,
  body: CreateImage,
): Promise<Queued> {
  const { source } = body;
  return source.kind === "url"
    ? await importImage(deps, tx, request, body, source)
    : await buildImage(deps, tx, request, body, source);
}

async function importImage(
  deps: ImageServiceDeps,
  tx: Tx,
  request: Request,
  body: CreateImage,
  source: ImportSource,
): Promise<Queued> {
  requireDiskFormat(body);
  const url = importUrl(source.url, deps.allow);
  const image = await insertImportingImage(tx, {
    id: newId<ImageId>(),
    projectId: request.project.id,
    name: body.name,
    kind: body.kind,
    format: body.format ?? null,
    labels: body.labels ?? {},
    sourceUrl: displayUrl(url),
  }).catch(whereTaken(body.name));
  const input = {
    imageId: image.id,
    kind: body.kind,
    format: body.format ?? null,
    url: url.href,
    sha256: source.sha256 ?? null,
  };
  return await queue(deps, tx, request, image, { kind: deps.importKind, input });
}

async function buildImage(
  deps: ImageServiceDeps,
  tx: Tx,
  request: Request,
  body: CreateImage,
  source: BuildSource,
): Promise<Queued> {
  requireBuildable(body);
  const { suite, packages, cloudInit, sizeGib = null } = source;
  const mirror =
    source.mirror === undefined ? null : importUrl(source.mirror, deps.allow, "/source/mirror").href;
  const recipe = { suite, mirror, packages, cloudInit, sizeGib };
  const image = await insertBuildingImage(tx, {
    id: newId<ImageId>(),
    projectId: request.project.id,
    name: body.name,
    labels: body.labels ?? {},
    build: recipe,
  }).catch(whereTaken(body.name));
  return await queue(deps, tx, request, image, {
    kind: deps.buildKind,
    input: { imageId: image.id, recipe },
  });
}

function whereTaken(name: string): (error: unknown) => never {
  return (error) => {
    throw uniqueViolation(error) === null ? error : nameTaken(name);
  };
}

async function queue<Input>(
  { kinds }: ImageServiceDeps,
  tx: Tx,
  { project, actor, requestId }: Request,
  image: ImageRecord,
  work: { readonly kind: OperationKind<Input>; readonly input: Input },
): Promise<Queued> {
  const operation = await enqueue(
    tx,
    {
      ...work,
      subjects: [{ kind: "image", id: image.id, mode: "exclusive" }],
      targets: [{ kind: "image", id: image.id, name: image.name }],
      projectId: project.id,
      hosts: [],
      actor,
      requestId,
    },
    kinds,
  );
  await appendEvent(tx, imageEvent("image.created", image, operation.id));
  return { image: toImage(image, project.name, [operation.id]), operationId: operation.id };
}

/** Throws DroverError `capability_unsupported` where what the body asks for cannot be done on this control plane. */
export async function requireAbility(deps: ImageServiceDeps, { source }: CreateImage): Promise<void> {
  if (source.kind === "debootstrap") await deps.builder.check();
}

/** What is built is a qcow2 disk. */
function requireBuildable({ kind, format }: CreateImage): void {
  if (kind !== "disk") throw wrong("/kind", `only a disk can be built, not a ${kind}`);
  if (format === "raw") throw wrong("/format", "a built disk is qcow2: leave the format out");
}

/** The last bytes of the log of an image's build. Throws `not_found` where there is no image, or no log. */
export async function readBuildLog(
  { database, builder }: Pick<ImageServiceDeps, "builder"> & { readonly database: Database },
  projectId: ProjectId,
  idOrName: string,
  maxBytes: number,
): Promise<Uint8Array> {
  const image = await resolveImage(database, projectId, idOrName);
  if (image.build === null)
    throw new DroverError("not_found", `The image "${image.name}" was not built here: it has no log.`);
  // Nothing was written yet where it waits for its turn.
  return (await builder.logs.read(image.id, maxBytes)) ?? new Uint8Array();
}

/** Refuses a format of what is no disk. */
export function requireDiskFormat(
  { kind, format }: Pick<CreateImage, "kind" | "format">,
  pointer = "/format",
): void {
  if (kind === "disk" || format === undefined) return;
  throw wrong(pointer, `only a disk has a format: leave it out for a ${kind}`);
}

function wrong(pointer: string, message: string): DroverError {
  return new DroverError("invalid_request", `The request is not valid: ${message}.`, {
    violations: [{ pointer, message }],
  });
}

/** What the schema let pass; an address written into the URL is judged here already, a name when it is resolved. */
function importUrl(text: string, allow: ImportAllowList, pointer = "/source/url"): URL {
  const parsed = parseImportUrl(text);
  if (!parsed.ok) {
    const violations = [{ pointer, message: parsed.reason }];
    throw new DroverError("invalid_request", `The URL ${parsed.reason}.`, { violations });
  }
  const refusal = refusalOfHost(parsed.url, allow);
  if (refusal === null) return parsed.url;
  throw new DroverError(
    "address_forbidden",
    `${displayUrl(parsed.url)} may not be fetched: its host is ${refusal}. Upload the image instead, or ask the ` +
      "operator to allow the address with DROVER_IMAGE_IMPORT_ALLOW.",
  );
}

export async function readImage(database: Database, project: ProjectRef, idOrName: string): Promise<Image> {
  return await withOperations(database, project, await resolveImage(database, project.id, idOrName));
}

/** The image of this id or name in the project. Throws `not_found`. */
export async function resolveImage(
  db: Parameters<typeof findImage>[0],
  projectId: ProjectId,
  idOrName: string,
): Promise<ImageRecord> {
  const image = await findImage(db, projectId, idOrName);
  if (image !== null) return image;
  throw noImage(idOrName);
}

async function withOperations(
  db: Parameters<typeof unfinishedImageOperations>[0],
  project: ProjectRef,
  image: ImageRecord,
): Promise<Image> {
  const operations = await unfinishedImageOperations(db, [image.id]);
  return toImage(image, project.name, operations.get(image.id) ?? []);
}

export interface ListRequest extends PageRequest {
  readonly name?: ImageFilter["name"];
  readonly kind?: ImageFilter["kind"];
  readonly state?: ImageFilter["state"];
  readonly labelSelector?: readonly LabelRequirement[] | undefined;
  readonly orderBy: KeysetField | `-${KeysetField}`;
}

export async function pageOfImages(
  database: Database,
  project: ProjectRef,
  request: ListRequest,
): Promise<{ items: Image[]; nextPageToken?: string }> {
  const { name, kind, state, labelSelector: labels, orderBy } = request;
  const filter = { name, kind, state, labels };
  const binding = { list: `images/${project.id}`, orderBy, filters: filter };
  const { after, limit } = pageWindow(binding, request);
  const order = parseOrderBy<KeysetField>(orderBy);
  const from = after === null ? null : { value: String(after.value), id: after.id };
  const rows = await listImages(database, project.id, filter, order, { after: from, limit });
  const operations = await unfinishedImageOperations(
    database,
    rows.map((row) => row.id),
  );
  return toPage(
    binding,
    request,
    rows,
    (row) => ({ value: order.field === "name" ? row.name : row.createdAt.toISOString(), id: row.id }),
    (row) => toImage(row, project.name, operations.get(row.id) ?? []),
  );
}

/** Changes labels. Throws `not_found`, `precondition_failed`, `invalid_request` for too many labels. */
export async function patchImage(
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  patch: PatchImage,
  ifMatch: IfMatch | null,
): Promise<Image> {
  const image = await lockImage(tx, project.id, idOrName);
  if (image === null) throw noImage(idOrName);
  requireMatch(ifMatch, image.generation);
  const labels = Labels.safeParse(patchLabels(image.labels, patch.labels ?? {}));
  if (!labels.success) {
    const message = labels.error.issues[0]?.message ?? "not valid";
    throw new DroverError("invalid_request", `The labels would not be valid: ${message}.`, {
      violations: [{ pointer: "/labels", message }],
    });
  }
  if (sameLabels(labels.data, image.labels)) return await withOperations(tx, project, image);
  const changed = await updateImageLabels(tx, image.id, labels.data);
  await appendEvent(tx, imageEvent("image.updated", changed));
  return await withOperations(tx, project, changed);
}

function sameLabels(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}

export function nameTaken(name: string): DroverError {
  return new DroverError(
    "name_taken",
    `There is an image "${name}" already. Choose another name, or delete that image first.`,
  );
}

export function noImage(idOrName: string): DroverError {
  return new DroverError("not_found", `There is no image "${idOrName}" in this project.`);
}

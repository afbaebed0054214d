import { Prisma } from "../db/generated/client.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Db, Tx } from "../db/transaction.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type ImageId, isUuid, type ProjectId } from "../lib/ids.ts";
import type { ImageFormat, ImageKind } from "./image-format.ts";
import type { ImageContentFacts, ImageRecord, ImageState } from "./image-record.ts";

type ImageRow = NonNullable<Awaited<ReturnType<Db["image"]["findUnique"]>>>;

// Sets the locks of contents apart from advisory locks of other kinds over the same 64 bits.
const CONTENT_LOCK_SEED = 7421;

/** A row as the rest of the program sees it. The columns are written by this program only, so their types are known. */
function recordOf(row: ImageRow): ImageRecord {
  return {
    id: asId<ImageId>(row.id),
    projectId: asId<ProjectId>(row.projectId),
    name: row.name,
    labels: row.labels as Record<string, string>,
    generation: row.generation,
    kind: row.kind as ImageKind,
    format: row.format as ImageFormat | null,
    state: row.state as ImageState,
    error: row.error as ErrorBody | null,
    content: contentOf(row),
    sourceUrl: row.sourceUrl,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
  };
}

function contentOf(row: ImageRow): ImageContentFacts | null {
  if (row.sha256 === null || row.sizeBytes === null) return null;
  return {
    sha256: row.sha256,
    sizeBytes: Number(row.sizeBytes),
    format: row.format as ImageFormat | null,
    virtualSizeBytes: row.virtualSizeBytes === null ? null : Number(row.virtualSizeBytes),
  };
}

/** The image of this id or name in the project, or null. */
export async function findImage(db: Db, projectId: ProjectId, idOrName: string): Promise<ImageRecord | null> {
  const reference = isUuid(idOrName) ? { id: idOrName } : { name: idOrName };
  const row = await db.image.findFirst({ where: { projectId, ...reference } });
  return row === null ? null : recordOf(row);
}

export async function getImage(db: Db, id: ImageId): Promise<ImageRecord | null> {
  const row = await db.image.findUnique({ where: { id } });
  return row === null ? null : recordOf(row);
}

/** The image as it stands, its row locked until the transaction ends; null when it is gone. */
export async function lockImage(tx: Tx, projectId: ProjectId, idOrName: string): Promise<ImageRecord | null> {
  const match = isUuid(idOrName) ? Prisma.sql`id = ${idOrName}::uuid` : Prisma.sql`name = ${idOrName}`;
  const rows = await tx.$queryRaw<{ id: string }[]>`
    SELECT id FROM image WHERE project_id = ${projectId}::uuid AND ${match} FOR UPDATE`;
  const [row] = rows;
  return row === undefined ? null : await getImage(tx, asId<ImageId>(row.id));
}

export interface NewImage {
  readonly id: ImageId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly kind: ImageKind;
  readonly labels: Readonly<Record<string, string>>;
}

/** Writes an image that is still to be fetched. A taken name is a unique violation. */
export async function insertImportingImage(
  tx: Tx,
  image: NewImage & { readonly format: ImageFormat | null; readonly sourceUrl: string },
): Promise<ImageRecord> {
  return recordOf(await tx.image.create({ data: { ...image, state: "importing" } }));
}

/** Writes an image whose content is in the store. A taken name is a unique violation. */
export async function insertReadyImage(
  tx: Tx,
  image: NewImage,
  content: ImageContentFacts,
): Promise<ImageRecord> {
  return recordOf(await tx.image.create({ data: { ...image, ...contentColumns(content), state: "ready" } }));
}

/**
 * Gives an importing image its content. From then on the content counts as used. False: the image is gone, or it is
 * not importing any more.
 */
export async function setImportedContent(tx: Tx, id: ImageId, content: ImageContentFacts): Promise<boolean> {
  const { count } = await tx.image.updateMany({
    where: { id, state: "importing" },
    data: contentColumns(content),
  });
  return count === 1;
}

/** Ends an import that has its content. Null: the image is gone, or it is not importing any more. */
export async function setImageReady(tx: Tx, id: ImageId): Promise<ImageRecord | null> {
  const { count } = await tx.image.updateMany({
    where: { id, state: "importing", sha256: { not: null } },
    data: { state: "ready" },
  });
  return count === 1 ? await getImage(tx, id) : null;
}

/** Ends an import that came to nothing; the content, if it got so far, is given up. Null: see `setImageReady`. */
export async function setImageFailed(tx: Tx, id: ImageId, error: ErrorBody): Promise<ImageRecord | null> {
  const { count } = await tx.image.updateMany({
    where: { id, state: "importing" },
    data: {
      state: "failed",
      error: error as unknown as Prisma.InputJsonObject,
      sha256: null,
      sizeBytes: null,
      virtualSizeBytes: null,
    },
  });
  return count === 1 ? await getImage(tx, id) : null;
}

export async function updateImageLabels(
  tx: Tx,
  id: ImageId,
  labels: Readonly<Record<string, string>>,
): Promise<ImageRecord> {
  return recordOf(await tx.image.update({ where: { id }, data: { labels, generation: { increment: 1 } } }));
}

/** Deletes the row. A VM that uses the image is a foreign key violation; a row that is gone already is fine. */
export async function deleteImageRow(tx: Tx, id: ImageId): Promise<void> {
  await tx.image.deleteMany({ where: { id } });
}

/** Names of VMs that were made from an image or boot with it. */
export async function vmsUsingImage(db: Db, id: ImageId, limit: number): Promise<readonly string[]> {
  const rows = await db.vm.findMany({
    where: { images: { some: { imageId: id } } },
    orderBy: { name: "asc" },
    select: { name: true },
    take: limit,
  });
  return rows.map((row) => row.name);
}

/** Operations on an image that have not ended, by id. */
export async function unfinishedImageOperations(
  db: Db,
  ids: readonly ImageId[],
): Promise<Map<string, string[]>> {
  const rows = await db.operationSubject.findMany({
    where: { kind: "image", subjectId: { in: [...ids] }, unfinished: true, mode: "exclusive" },
    orderBy: { seq: "asc" },
    select: { subjectId: true, operationId: true },
  });
  const operations = new Map<string, string[]>();
  for (const { subjectId, operationId } of rows) {
    operations.set(subjectId, [...(operations.get(subjectId) ?? []), operationId]);
  }
  return operations;
}

export interface ImageFilter {
  readonly name?: string | undefined;
  readonly kind?: ImageKind | undefined;
  readonly state?: ImageState | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

export const IMAGE_ORDERS = ["name", "createdAt"] as const;
export type ImageOrder = (typeof IMAGE_ORDERS)[number];

export interface ImagePosition {
  /** A name, or a time in RFC 3339. */
  readonly value: string;
  readonly id: string;
}

const ORDER_COLUMN = { name: Prisma.sql`name`, createdAt: Prisma.sql`created_at` } as const;

/** Images of a project in a keyset order: those after the position where the last page ended. */
export async function listImages(
  db: Db,
  projectId: ProjectId,
  filter: ImageFilter,
  order: { readonly field: ImageOrder; readonly direction: "asc" | "desc" },
  page: { readonly after: ImagePosition | null; readonly limit: number },
): Promise<readonly ImageRecord[]> {
  const column = ORDER_COLUMN[order.field];
  const direction = order.direction === "asc" ? Prisma.sql`ASC` : Prisma.sql`DESC`;
  const beyond = order.direction === "asc" ? Prisma.sql`>` : Prisma.sql`<`;
  const cast = order.field === "createdAt" ? Prisma.sql`::timestamptz` : Prisma.empty;
  const conditions = [Prisma.sql`project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  if (page.after !== null) {
    conditions.push(
      Prisma.sql`(${column}, id) ${beyond} (${page.after.value}${cast}, ${page.after.id}::uuid)`,
    );
  }
  const rows = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM image WHERE ${Prisma.join(conditions, " AND ")}
    ORDER BY ${column} ${direction}, id ${direction} LIMIT ${page.limit}`;
  const found = await db.image.findMany({ where: { id: { in: rows.map((row) => row.id) } } });
  const byId = new Map(found.map((row) => [row.id, recordOf(row)]));
  return rows.flatMap((row) => byId.get(row.id) ?? []);
}

function conditionsOf(filter: ImageFilter): Prisma.Sql[] {
  const conditions: Prisma.Sql[] = [];
  if (filter.name !== undefined) conditions.push(Prisma.sql`name = ${filter.name}`);
  if (filter.kind !== undefined) conditions.push(Prisma.sql`kind = ${filter.kind}`);
  if (filter.state !== undefined) conditions.push(Prisma.sql`state = ${filter.state}`);
  if (filter.labels !== undefined) conditions.push(labelCondition(filter.labels, Prisma.sql`labels`));
  return conditions;
}

function contentColumns(content: ImageContentFacts) {
  const { sha256, sizeBytes, format, virtualSizeBytes } = content;
  return {
    sha256,
    format,
    sizeBytes: BigInt(sizeBytes),
    virtualSizeBytes: virtualSizeBytes === null ? null : BigInt(virtualSizeBytes),
  };
}

/**
 * Takes a content's lock until the transaction ends. A content is placed, and removed, only under it: whoever gets
 * the lock sees, in its next statement, every image that refers to the content.
 */
export async function lockContent(tx: Tx, sha256: string): Promise<void> {
  await tx.$queryRaw`SELECT pg_advisory_xact_lock(hashtextextended(${sha256}, ${CONTENT_LOCK_SEED}))::text`;
}

/** Which of these contents an image refers to, whatever its project. */
export async function contentsInUse(db: Db, sha256s: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.image.findMany({
    where: { sha256: { in: [...sha256s] } },
    distinct: ["sha256"],
    select: { sha256: true },
  });
  return new Set(rows.flatMap((row) => row.sha256 ?? []));
}

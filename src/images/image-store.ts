import { Prisma } from "../db/generated/client.ts";
import { type KeysetOrder, type KeysetPage, keysetPage } from "../db/keyset.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Db, Sql, Tx } from "../db/transaction.ts";
import type { ErrorBody } from "../lib/errors.ts";
import { asId, type ImageId, isUuid, type ProjectId } from "../lib/ids.ts";
import type { BuildRecipe } from "./build/build-recipe.ts";
import type { ImageFormat, ImageKind } from "./image-format.ts";
import type { ImageContentFacts, ImageRecord, ImageState } from "./image-record.ts";

type ImageRow = NonNullable<Awaited<ReturnType<Db["image"]["findUnique"]>>>;

const COLUMNS = Prisma.sql`id, project_id AS "projectId", name, labels, generation, kind, format, state, error,
  size_bytes AS "sizeBytes", virtual_size_bytes AS "virtualSizeBytes", sha256, source_url AS "sourceUrl", build,
  created_at AS "createdAt", updated_at AS "updatedAt"`;

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
    build: row.build as BuildRecipe | null,
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
export async function findImage(
  db: Sql,
  projectId: ProjectId,
  idOrName: string,
): Promise<ImageRecord | null> {
  const [row] = await db.$queryRaw<
    ImageRow[]
  >`SELECT ${COLUMNS} FROM image WHERE ${named(projectId, idOrName)}`;
  return row === undefined ? null : recordOf(row);
}

function named(projectId: ProjectId, idOrName: string): Prisma.Sql {
  const match = isUuid(idOrName) ? Prisma.sql`id = ${idOrName}::uuid` : Prisma.sql`name = ${idOrName}`;
  return Prisma.sql`project_id = ${projectId}::uuid AND ${match}`;
}

export async function getImage(db: Sql, id: ImageId): Promise<ImageRecord | null> {
  const [row] = await db.$queryRaw<ImageRow[]>`SELECT ${COLUMNS} FROM image WHERE id = ${id}::uuid`;
  return row === undefined ? null : recordOf(row);
}

/** The image as it stands, its row locked until the transaction ends; null when it is gone. */
export async function lockImage(tx: Tx, projectId: ProjectId, idOrName: string): Promise<ImageRecord | null> {
  const [row] = await tx.$queryRaw<ImageRow[]>`
    SELECT ${COLUMNS} FROM image WHERE ${named(projectId, idOrName)} FOR UPDATE`;
  return row === undefined ? null : recordOf(row);
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
  const { id, projectId, name, kind, labels, format, sourceUrl } = image;
  const rows = await tx.$queryRaw<ImageRow[]>`
    INSERT INTO image (id, project_id, name, kind, labels, format, source_url, state, updated_at)
    VALUES (${id}::uuid, ${projectId}::uuid, ${name}, ${kind}, ${JSON.stringify(labels)}::jsonb, ${format}, ${sourceUrl},
            'importing', now())
    RETURNING ${COLUMNS}`;
  return writtenRecord(rows);
}

/** Writes an image that is still to be built: a disk. A taken name is a unique violation. */
export async function insertBuildingImage(
  tx: Tx,
  image: Omit<NewImage, "kind"> & { readonly build: BuildRecipe },
): Promise<ImageRecord> {
  const { id, projectId, name, labels, build } = image;
  const rows = await tx.$queryRaw<ImageRow[]>`
    INSERT INTO image (id, project_id, name, kind, labels, format, build, state, updated_at)
    VALUES (${id}::uuid, ${projectId}::uuid, ${name}, 'disk', ${JSON.stringify(labels)}::jsonb, 'qcow2',
            ${JSON.stringify(build)}::jsonb, 'building', now())
    RETURNING ${COLUMNS}`;
  return writtenRecord(rows);
}

/** Writes an image whose content is in the store. A taken name is a unique violation. */
export async function insertReadyImage(
  tx: Tx,
  image: NewImage,
  content: ImageContentFacts,
): Promise<ImageRecord> {
  const { id, projectId, name, kind, labels } = image;
  const { sha256, sizeBytes, format, virtualSizeBytes } = content;
  const rows = await tx.$queryRaw<ImageRow[]>`
    INSERT INTO image (id, project_id, name, kind, labels, state, sha256, size_bytes, format, virtual_size_bytes,
                       updated_at)
    VALUES (${id}::uuid, ${projectId}::uuid, ${name}, ${kind}, ${JSON.stringify(labels)}::jsonb, 'ready', ${sha256},
            ${sizeBytes}, ${format}, ${virtualSizeBytes}, now())
    RETURNING ${COLUMNS}`;
  return writtenRecord(rows);
}

function writtenRecord([row]: readonly ImageRow[]): ImageRecord {
  if (row === undefined) throw new Error("a written row was not returned");
  return recordOf(row);
}

/**
 * Gives an image that is imported or built its content. From then on the content counts as used. False: the image is
 * gone, or it has ended.
 */
export async function setArrivedContent(tx: Tx, id: ImageId, content: ImageContentFacts): Promise<boolean> {
  const { sha256, sizeBytes, format, virtualSizeBytes } = content;
  const count = await tx.$executeRaw`
    UPDATE image SET sha256 = ${sha256}, size_bytes = ${sizeBytes}, format = ${format},
      virtual_size_bytes = ${virtualSizeBytes}, updated_at = now()
    WHERE id = ${id}::uuid AND state IN ('importing', 'building')`;
  return count === 1;
}

/** Ends an import or a build that has its content. Null: the image is gone, or it has ended. */
export async function setImageReady(tx: Tx, id: ImageId): Promise<ImageRecord | null> {
  const [row] = await tx.$queryRaw<ImageRow[]>`
    UPDATE image SET state = 'ready', updated_at = now()
    WHERE id = ${id}::uuid AND state IN ('importing', 'building') AND sha256 IS NOT NULL RETURNING ${COLUMNS}`;
  return row === undefined ? null : recordOf(row);
}

/** Ends an import or a build that came to nothing; the content, if it got so far, is given up. Null: see `setImageReady`. */
export async function setImageFailed(tx: Tx, id: ImageId, error: ErrorBody): Promise<ImageRecord | null> {
  const [row] = await tx.$queryRaw<ImageRow[]>`
    UPDATE image SET state = 'failed', error = ${JSON.stringify(error)}::jsonb, sha256 = NULL, size_bytes = NULL,
      virtual_size_bytes = NULL, updated_at = now()
    WHERE id = ${id}::uuid AND state IN ('importing', 'building') RETURNING ${COLUMNS}`;
  return row === undefined ? null : recordOf(row);
}

export async function updateImageLabels(
  tx: Tx,
  id: ImageId,
  labels: Readonly<Record<string, string>>,
): Promise<ImageRecord> {
  const rows = await tx.$queryRaw<ImageRow[]>`
    UPDATE image SET labels = ${JSON.stringify(labels)}::jsonb, generation = generation + 1, updated_at = now()
    WHERE id = ${id}::uuid RETURNING ${COLUMNS}`;
  return writtenRecord(rows);
}

/**
 * Whether there is still an image of this id. Waits for a transaction that deletes it, and keeps it until the end of
 * its own.
 */
export async function imageStays(tx: Tx, id: string): Promise<boolean> {
  const rows = await tx.$queryRaw<unknown[]>`SELECT 1 FROM image WHERE id = ${id}::uuid FOR KEY SHARE`;
  return rows.length > 0;
}

/** Which of these operations have not ended. */
export async function unendedOperations(db: Sql, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM operation WHERE id = ANY(${[...ids]}::text[]::uuid[]) AND ended_at IS NULL`;
  return new Set(rows.map(({ id }) => id));
}

/** Deletes the row. A VM that uses the image is a foreign key violation; a row that is gone already is fine. */
export async function deleteImageRow(tx: Tx, id: ImageId): Promise<void> {
  await tx.$executeRaw`DELETE FROM image WHERE id = ${id}::uuid`;
}

/** Names of VMs that were made from an image or boot with it. */
export async function vmsUsingImage(db: Sql, id: ImageId, limit: number): Promise<readonly string[]> {
  const rows = await db.$queryRaw<{ name: string }[]>`
    SELECT v.name FROM vm v WHERE v.id IN (SELECT u.vm_id FROM vm_image u WHERE u.image_id = ${id}::uuid)
    ORDER BY v.name LIMIT ${limit}`;
  return rows.map((row) => row.name);
}

/** Operations on an image that have not ended, by id. */
export async function unfinishedImageOperations(
  db: Sql,
  ids: readonly ImageId[],
): Promise<Map<string, string[]>> {
  const rows = await db.$queryRaw<{ subjectId: string; operationId: string }[]>`
    SELECT subject_id AS "subjectId", operation_id AS "operationId" FROM operation_subject
    WHERE kind = 'image' AND subject_id = ANY(${[...ids]}::text[]::uuid[]) AND unfinished AND mode = 'exclusive'
    ORDER BY seq`;
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

/** Images of a project in a keyset order: those after the position where the last page ended. */
export async function listImages(
  db: Sql,
  projectId: ProjectId,
  filter: ImageFilter,
  order: KeysetOrder,
  page: KeysetPage,
): Promise<readonly ImageRecord[]> {
  const conditions = [Prisma.sql`project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  const rows = await db.$queryRaw<ImageRow[]>`
    SELECT ${COLUMNS} FROM image ${keysetPage(Prisma.sql`image`, conditions, order, page)}`;
  return rows.map(recordOf);
}

function conditionsOf(filter: ImageFilter): Prisma.Sql[] {
  const conditions: Prisma.Sql[] = [];
  if (filter.name !== undefined) conditions.push(Prisma.sql`name = ${filter.name}`);
  if (filter.kind !== undefined) conditions.push(Prisma.sql`kind = ${filter.kind}`);
  if (filter.state !== undefined) conditions.push(Prisma.sql`state = ${filter.state}`);
  if (filter.labels !== undefined) conditions.push(labelCondition(filter.labels, Prisma.sql`labels`));
  return conditions;
}

/**
 * Takes a content's lock until the transaction ends. A content is placed, and removed, only under it: whoever gets
 * the lock sees, in its next statement, every image that refers to the content.
 */
export async function lockContent(tx: Tx, sha256: string): Promise<void> {
  await tx.$queryRaw`SELECT pg_advisory_xact_lock(hashtextextended(${sha256}, ${CONTENT_LOCK_SEED}))::text`;
}

/** Which of these contents an image refers to, whatever its project. */
export async function contentsInUse(db: Sql, sha256s: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db.$queryRaw<{ sha256: string }[]>`
    SELECT DISTINCT sha256 FROM image WHERE sha256 = ANY(${[...sha256s]}::text[])`;
  return new Set(rows.map((row) => row.sha256));
}

/** Names of volumes that are being filled from an image. */
export async function volumesFillingFrom(
  db: Sql,
  imageId: string,
  limit: number,
): Promise<readonly string[]> {
  const rows = await db.$queryRaw<{ name: string }[]>`
    SELECT coalesce(own_name, id::text) AS name FROM volume WHERE image_id = ${imageId}::uuid ORDER BY name LIMIT ${limit}`;
  return rows.map(({ name }) => name);
}

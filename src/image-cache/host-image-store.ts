import { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import type { ErrorBody } from "../lib/errors.ts";
import {
  asId,
  type HostId,
  type HostImageId,
  type ImageId,
  type InstallationId,
  newId,
  type OperationId,
  type VmId,
  type VolumeId,
} from "../lib/ids.ts";
import { CACHING_POOL_TYPES, type CachedContent, type HostImage, hostImageName } from "./host-image.ts";

/**
 * Copies of images on hosts. The state of one is changed only with its lane locked (subject `hostImage`), which comes
 * before every row; what fills or evicts it holds that lane too when it ends.
 */

const COLUMNS = Prisma.sql`c.id, c.host_id AS "hostId", c.pool, c.name, c.sha256, c.format,
  c.size_bytes::float8 AS "sizeBytes", c.capacity_bytes::float8 AS "capacityBytes", c.state,
  c.filled_bytes::float8 AS "filledBytes", c.operation_id AS "operationId", c.error, c.last_used_at AS "lastUsedAt",
  (SELECT count(*)::int FROM host_image_use u WHERE u.host_image_id = c.id) AS uses`;

/**
 * Sees to it that the pool has a row for each content, and returns their ids in the order of the contents. Null: the
 * pool is none that keeps copies.
 */
export async function ensureHostImages(
  tx: Tx,
  { hostId, pool }: { readonly hostId: HostId; readonly pool: string },
  contents: readonly CachedContent[],
): Promise<HostImageId[] | null> {
  const [place] = await tx.$queryRaw<{ installationId: InstallationId }[]>`
    SELECT i.id AS "installationId" FROM host_pool p, installation i
    WHERE p.host_id = ${hostId}::uuid AND p.name = ${pool} AND p.type = ANY(${[...CACHING_POOL_TYPES]}::text[])`;
  if (place === undefined) return null;
  const ids: HostImageId[] = [];
  for (const content of contents) {
    const { sha256, format, sizeBytes, capacityBytes } = content;
    // No row that is there is locked: its lane comes first.
    await tx.$executeRaw`
      INSERT INTO host_image (id, host_id, pool, name, sha256, format, size_bytes, capacity_bytes, state)
      VALUES (${newId<HostImageId>()}::uuid, ${hostId}::uuid, ${pool}, ${hostImageName(place.installationId, content)},
              ${sha256}, ${format}, ${sizeBytes}, ${capacityBytes}, 'absent')
      ON CONFLICT (host_id, pool, sha256, format) DO NOTHING`;
    const [row] = await tx.$queryRaw<{ id: string }[]>`
      SELECT id FROM host_image WHERE host_id = ${hostId}::uuid AND pool = ${pool} AND sha256 = ${sha256}
        AND format = ${format}`;
    if (row === undefined) return null;
    ids.push(asId<HostImageId>(row.id));
  }
  return ids;
}

/**
 * Uses copies where all are ready: their ids in the order of the contents. Their rows stay locked, so that whoever evicts
 * them sees the use that is written behind this. Null, and none is locked, where one is not there.
 */
export async function useReadyHostImages(
  tx: Tx,
  { hostId, pool }: { readonly hostId: HostId; readonly pool: string },
  contents: readonly CachedContent[],
): Promise<HostImageId[] | null> {
  const rows = await tx.$queryRaw<{ id: string; sha256: string; format: string }[]>`
    WITH wanted AS (
      SELECT c.id FROM host_image c
      JOIN unnest(${contents.map(({ sha256 }) => sha256)}::text[], ${contents.map(({ format }) => format)}::text[])
        AS w(sha256, format) ON w.sha256 = c.sha256 AND w.format = c.format
      WHERE c.host_id = ${hostId}::uuid AND c.pool = ${pool} AND c.state = 'ready')
    UPDATE host_image c SET last_used_at = clock_timestamp() FROM wanted
    WHERE c.id = wanted.id AND c.state = 'ready' AND (SELECT count(*) FROM wanted) = ${contents.length}::int
    RETURNING c.id, c.sha256, c.format`;
  const ids = contents.map(({ sha256, format }) => {
    const row = rows.find((candidate) => candidate.sha256 === sha256 && candidate.format === format);
    return row === undefined ? null : asId<HostImageId>(row.id);
  });
  const found = ids.filter((id) => id !== null);
  return found.length === contents.length ? found : null;
}

export async function getHostImage(db: Sql, id: HostImageId): Promise<HostImage | null> {
  const [row] = await db.$queryRaw<HostImage[]>`SELECT ${COLUMNS} FROM host_image c WHERE c.id = ${id}::uuid`;
  return row ?? null;
}

/** Locks rows whose lanes are locked, until the transaction ends, and reads them. */
export async function lockHostImages(tx: Tx, ids: readonly HostImageId[]): Promise<HostImage[]> {
  await tx.$queryRaw`
    SELECT id FROM host_image WHERE id = ANY(${[...ids]}::text[]::uuid[]) ORDER BY id FOR NO KEY UPDATE`;
  return await tx.$queryRaw<HostImage[]>`
    SELECT ${COLUMNS} FROM host_image c WHERE c.id = ANY(${[...ids]}::text[]::uuid[]) ORDER BY c.id`;
}

/** All copies on a host, in one pool or in all. */
export async function hostImagesOf(db: Sql, hostId: HostId, pool?: string): Promise<HostImage[]> {
  const where =
    pool === undefined
      ? Prisma.sql`c.host_id = ${hostId}::uuid`
      : Prisma.sql`c.host_id = ${hostId}::uuid AND c.pool = ${pool}`;
  return await db.$queryRaw<HostImage[]>`
    SELECT ${COLUMNS} FROM host_image c WHERE ${where} ORDER BY c.pool, c.last_used_at DESC, c.id`;
}

/** The host's name, and what its pool had left when it was last looked at. */
export async function poolOf(
  db: Sql,
  hostId: HostId,
  pool: string,
): Promise<{ readonly hostName: string; readonly availableBytes: number } | null> {
  const [row] = await db.$queryRaw<{ hostName: string; availableBytes: number | null }[]>`
    SELECT h.name AS "hostName", p.available_bytes::float8 AS "availableBytes"
    FROM host h LEFT JOIN host_pool p ON p.host_id = h.id AND p.name = ${pool} WHERE h.id = ${hostId}::uuid`;
  if (row === undefined) return null;
  return { hostName: row.hostName, availableBytes: row.availableBytes ?? 0 };
}

/** An image that has this content now. */
export async function imageWithContent(
  db: Sql,
  sha256: string,
): Promise<{ readonly id: ImageId; readonly name: string } | null> {
  const [row] = await db.$queryRaw<{ id: string; name: string }[]>`
    SELECT id, name FROM image WHERE sha256 = ${sha256} AND state = 'ready' ORDER BY id LIMIT 1`;
  return row === undefined ? null : { id: asId<ImageId>(row.id), name: row.name };
}

/** The copy that a volume is made of. */
export async function copyOfVolume(db: Sql, volumeId: string): Promise<HostImage | null> {
  const [row] = await db.$queryRaw<HostImage[]>`
    SELECT ${COLUMNS} FROM host_image_use v JOIN host_image c ON c.id = v.host_image_id
    WHERE v.volume_id = ${volumeId}::uuid`;
  return row ?? null;
}

/** A volume is to be made of this copy. */
export async function useHostImage(tx: Tx, volumeId: VolumeId, id: HostImageId): Promise<void> {
  await tx.$executeRaw`
    INSERT INTO host_image_use (volume_id, host_image_id) VALUES (${volumeId}::uuid, ${id}::uuid)`;
}

export async function touchHostImages(tx: Tx, ids: readonly HostImageId[]): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET last_used_at = clock_timestamp() WHERE id = ANY(${[...ids]}::text[]::uuid[])`;
}

export async function setFilling(tx: Tx, id: HostImageId, operationId: OperationId): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET state = 'filling', operation_id = ${operationId}::uuid, error = NULL,
      last_used_at = clock_timestamp() WHERE id = ${id}::uuid`;
}

/** It is there; the operation will find that out. */
export async function setOperation(tx: Tx, id: HostImageId, operationId: OperationId): Promise<void> {
  await tx.$executeRaw`UPDATE host_image SET operation_id = ${operationId}::uuid WHERE id = ${id}::uuid`;
}

export async function setEvicting(tx: Tx, id: HostImageId, operationId: OperationId): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET state = 'evicting', operation_id = ${operationId}::uuid WHERE id = ${id}::uuid`;
}

/** So much of it has arrived for certain; an upload that breaks off goes on from here. */
export async function setFilled(tx: Tx, id: HostImageId, filledBytes: number): Promise<void> {
  await tx.$executeRaw`UPDATE host_image SET filled_bytes = ${filledBytes} WHERE id = ${id}::uuid`;
}

/** It is there, whole. */
export async function setReady(tx: Tx, id: HostImageId): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET state = 'ready', filled_bytes = size_bytes, error = NULL WHERE id = ${id}::uuid`;
}

/** What should have brought it has ended without; `error` is null where somebody only gave it up. */
export async function setAbsent(
  tx: Tx,
  id: HostImageId,
  operationId: OperationId,
  error: ErrorBody | null,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET state = 'absent', error = ${error === null ? null : JSON.stringify(error)}::jsonb
    WHERE id = ${id}::uuid AND operation_id = ${operationId}::uuid AND state <> 'ready'`;
}

/** Somebody took it from the host. */
export async function setMissing(tx: Tx, id: HostImageId): Promise<void> {
  await tx.$executeRaw`
    UPDATE host_image SET state = 'absent', filled_bytes = 0, error = NULL WHERE id = ${id}::uuid AND state = 'ready'`;
}

/** It is gone from the host, and nobody has asked for it since. */
export async function deleteEvicted(tx: Tx, id: HostImageId): Promise<void> {
  await tx.$executeRaw`DELETE FROM host_image WHERE id = ${id}::uuid AND state = 'evicting'`;
}

/** Gives up the copies that a VM's volumes were to be made of. */
export async function releaseCopiesOfVm(tx: Tx, vmId: VmId): Promise<void> {
  await tx.$executeRaw`
    DELETE FROM host_image_use u USING volume v WHERE v.id = u.volume_id AND v.vm_id = ${vmId}::uuid`;
}

/** Gives up the copy that a volume was to be made of. */
export async function releaseCopyOf(tx: Tx, volumeId: VolumeId): Promise<void> {
  await tx.$executeRaw`DELETE FROM host_image_use WHERE volume_id = ${volumeId}::uuid`;
}

/** The same for volumes that are complete by themselves, as a part of the statement that records a step. */
export function releasedCopies(volumeIds: readonly string[]): Prisma.Sql {
  return Prisma.sql`released AS (
    DELETE FROM host_image_use u USING o WHERE u.volume_id = ANY(${[...volumeIds]}::text[]::uuid[]))`;
}

/** Copies that no volume needs and no image has any more, or that are not known to be whole: some of them. */
export async function uselessHostImages(db: Sql, limit: number): Promise<HostImageId[]> {
  const rows = await db.$queryRaw<{ id: string }[]>`
    SELECT c.id FROM host_image c
    WHERE (c.state = 'absent' OR c.state = 'ready' AND NOT EXISTS (
        SELECT FROM image i WHERE i.sha256 = c.sha256 AND i.state = 'ready'))
      AND NOT EXISTS (SELECT FROM host_image_use u WHERE u.host_image_id = c.id)
    ORDER BY c.last_used_at LIMIT ${limit}::int`;
  return rows.map(({ id }) => asId<HostImageId>(id));
}

/** Pools whose copies take more than this. */
export async function overfullPools(
  db: Sql,
  limitBytes: number,
): Promise<{ readonly hostId: HostId; readonly pool: string }[]> {
  return await db.$queryRaw<{ hostId: HostId; pool: string }[]>`
    SELECT host_id AS "hostId", pool FROM host_image WHERE state IN ('ready', 'filling')
    GROUP BY host_id, pool HAVING sum(size_bytes) > ${limitBytes}::numeric`;
}

/** The host of a copy, for the steps of its operations. */
export function hostIdOfHostImage(id: HostImageId): Prisma.Sql {
  return Prisma.sql`SELECT host_id FROM host_image WHERE id = ${id}::uuid`;
}

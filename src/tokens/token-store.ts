import { uniqueViolation } from "../db/database-errors.ts";
import { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import type { PageWindow } from "../http/pagination.ts";
import type { Reference } from "../http/schemas.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type ProjectId, type TokenId } from "../lib/ids.ts";

export interface TokenRow {
  readonly id: TokenId;
  readonly name: string;
  readonly project: { readonly id: string; readonly name: string } | null;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
}

// Columns of `api_token t` with `project p`.
const COLUMNS = Prisma.sql`t.id, t.name, t.created_at AS "createdAt", t.expires_at AS "expiresAt",
  t.last_used_at AS "lastUsedAt",
  CASE WHEN p.id IS NOT NULL THEN jsonb_build_object('id', p.id, 'name', p.name) END AS project`;

export interface NewToken {
  readonly id: TokenId;
  readonly name: string;
  readonly projectId: ProjectId | null;
  readonly secretHash: Uint8Array;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
}

/** Throws `name_taken` where a token of that name is not revoked. */
export async function insertToken(tx: Tx, token: NewToken): Promise<TokenRow> {
  const { id, name, projectId, secretHash, createdAt, expiresAt } = token;
  try {
    const [row] = await tx.$queryRaw<TokenRow[]>`
      WITH t AS (
        INSERT INTO api_token (id, name, project_id, secret_hash, created_at, expires_at)
        VALUES (${id}::uuid, ${name}, ${projectId}::uuid, ${secretHash}, ${createdAt}, ${expiresAt}) RETURNING *)
      SELECT ${COLUMNS} FROM t LEFT JOIN project p ON p.id = t.project_id`;
    if (row === undefined) throw new Error("an INSERT returned no row");
    return row;
  } catch (error) {
    if (uniqueViolation(error) === null) throw error;
    const message = `A token named "${token.name}" exists. Choose another name, or revoke that one first.`;
    throw new DroverError("name_taken", message, { cause: error });
  }
}

/** A token that is not revoked (it may have expired), or null. */
export async function findToken(db: Sql, reference: Reference): Promise<TokenRow | null> {
  const [row] = await db.$queryRaw<TokenRow[]>`
    SELECT ${COLUMNS} FROM api_token t LEFT JOIN project p ON p.id = t.project_id
    WHERE ${named(Prisma.sql`t`, reference)} AND t.revoked_at IS NULL`;
  return row ?? null;
}

function named(table: Prisma.Sql, reference: Reference): Prisma.Sql {
  return "id" in reference
    ? Prisma.sql`${table}.id = ${reference.id}::uuid`
    : Prisma.sql`${table}.name = ${reference.name}`;
}

/** Tokens that are not revoked, by name. */
export async function listTokens(db: Sql, { after, limit }: PageWindow): Promise<TokenRow[]> {
  const beyond = after === null ? Prisma.sql`true` : Prisma.sql`t.name > ${String(after.value)}`;
  return await db.$queryRaw<TokenRow[]>`
    SELECT ${COLUMNS} FROM api_token t LEFT JOIN project p ON p.id = t.project_id
    WHERE t.revoked_at IS NULL AND ${beyond} ORDER BY t.name LIMIT ${limit}`;
}

export async function findProjectId(db: Sql, reference: Reference): Promise<ProjectId | null> {
  const [row] = await db.$queryRaw<{ id: string }[]>`
    SELECT p.id FROM project p WHERE ${named(Prisma.sql`p`, reference)}`;
  return row === undefined ? null : asId<ProjectId>(row.id);
}

/**
 * The ids of the tokens that reach everything and work now, locked: of two that are revoked at once the second
 * waits here and then sees that the first is gone.
 */
export async function lockTokensThatReachAll(tx: Tx, now: Date): Promise<TokenId[]> {
  const rows = await tx.$queryRaw<{ id: string }[]>`
    SELECT id::text FROM api_token
    WHERE project_id IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${now})
    ORDER BY id FOR UPDATE`;
  return rows.map((row) => asId<TokenId>(row.id));
}

/** True while a token is neither revoked nor expired. */
export async function tokenWorks(db: Sql, id: TokenId, now: Date): Promise<boolean> {
  const rows = await db.$queryRaw<unknown[]>`
    SELECT FROM api_token
    WHERE id = ${id}::uuid AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${now})`;
  return rows.length > 0;
}

/** False when it was revoked already. */
export async function revokeToken(tx: Tx, id: TokenId, now: Date): Promise<boolean> {
  const count = await tx.$executeRaw`
    UPDATE api_token SET revoked_at = ${now} WHERE id = ${id}::uuid AND revoked_at IS NULL`;
  return count === 1;
}

export async function secretIsKnown(db: Sql, secretHash: Uint8Array): Promise<boolean> {
  const rows = await db.$queryRaw<unknown[]>`SELECT FROM api_token WHERE secret_hash = ${secretHash}`;
  return rows.length > 0;
}

export async function nameIsTaken(db: Sql, name: string): Promise<boolean> {
  const rows = await db.$queryRaw<
    unknown[]
  >`SELECT FROM api_token WHERE name = ${name} AND revoked_at IS NULL`;
  return rows.length > 0;
}

// Any number that no other lock of ours uses: the first processes of an installation may start together.
const BOOTSTRAP_LOCK = 7_420_001;

/** Keeps others from making the first token too, until the transaction ends. */
export async function lockBootstrap(tx: Tx): Promise<void> {
  await tx.$queryRaw`SELECT pg_advisory_xact_lock(${BOOTSTRAP_LOCK})::text`;
}

export interface LiveToken {
  readonly id: TokenId;
  readonly name: string;
  readonly projectId: ProjectId | null;
  readonly lastUsedAt: Date | null;
  readonly project: { readonly id: ProjectId; readonly name: string } | null;
}

interface LiveTokenRow {
  readonly id: string;
  readonly name: string;
  readonly bound_to: string | null;
  readonly last_used_at: Date | null;
  readonly project_id: string | null;
  readonly project_name: string | null;
}

/**
 * The token of a secret, if it works now, together with the project that was asked for (its own or `default`, when
 * none was): one round trip, for every request makes it.
 */
export async function findLiveToken(
  db: Sql,
  secretHash: Uint8Array,
  asked: Reference | null,
  now: Date,
): Promise<LiveToken | null> {
  const askedId = asked !== null && "id" in asked ? asked.id : null;
  const askedName = asked !== null && "name" in asked ? asked.name : null;
  const rows = await db.$queryRaw<LiveTokenRow[]>`
    SELECT t.id::text, t.name, t.project_id::text AS bound_to, t.last_used_at,
           p.id::text AS project_id, p.name AS project_name
    FROM api_token t
    LEFT JOIN project p ON p.id = ${askedId}::uuid
      OR p.name = coalesce(${askedName}, CASE WHEN ${askedId}::uuid IS NULL AND t.project_id IS NULL THEN 'default' END)
      OR (${askedId}::uuid IS NULL AND ${askedName}::text IS NULL AND p.id = t.project_id)
    WHERE t.secret_hash = ${Uint8Array.from(secretHash)}
      AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ${now})`;
  const [row] = rows;
  if (row === undefined) return null;
  return {
    id: asId<TokenId>(row.id),
    name: row.name,
    projectId: row.bound_to === null ? null : asId<ProjectId>(row.bound_to),
    lastUsedAt: row.last_used_at,
    project:
      row.project_id === null || row.project_name === null
        ? null
        : { id: asId<ProjectId>(row.project_id), name: row.project_name },
  };
}

/** Notes that a token was used, unless somebody noted it after `before`. */
export async function touchToken(db: Sql, id: TokenId, now: Date, before: Date): Promise<void> {
  await db.$executeRaw`
    UPDATE api_token SET last_used_at = ${now}
    WHERE id = ${id}::uuid AND (last_used_at IS NULL OR last_used_at < ${before})`;
}

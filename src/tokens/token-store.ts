import { uniqueViolation } from "../db/database-errors.ts";
import type { Db, Tx } from "../db/transaction.ts";
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

const WITH_PROJECT = { project: { select: { id: true, name: true } } } as const;

type Found = Omit<TokenRow, "id"> & { readonly id: string };

function toRow(row: Found): TokenRow {
  const { name, project, createdAt, expiresAt, lastUsedAt } = row;
  return { id: asId<TokenId>(row.id), name, project, createdAt, expiresAt, lastUsedAt };
}

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
  const data = { ...token, secretHash: Uint8Array.from(token.secretHash) };
  try {
    return toRow(await tx.apiToken.create({ data, include: WITH_PROJECT }));
  } catch (error) {
    if (uniqueViolation(error) === null) throw error;
    const message = `A token named "${token.name}" exists. Choose another name, or revoke that one first.`;
    throw new DroverError("name_taken", message, { cause: error });
  }
}

/** A token that is not revoked (it may have expired), or null. */
export async function findToken(db: Db, reference: Reference): Promise<TokenRow | null> {
  const row = await db.apiToken.findFirst({
    where: { ...reference, revokedAt: null },
    include: WITH_PROJECT,
  });
  return row === null ? null : toRow(row);
}

/** Tokens that are not revoked, by name. */
export async function listTokens(db: Db, { after, limit }: PageWindow): Promise<TokenRow[]> {
  const rows = await db.apiToken.findMany({
    where: { revokedAt: null, ...(after === null ? {} : { name: { gt: String(after.value) } }) },
    include: WITH_PROJECT,
    orderBy: { name: "asc" },
    take: limit,
  });
  return rows.map(toRow);
}

export async function findProjectId(db: Db, reference: Reference): Promise<ProjectId | null> {
  const row = await db.project.findFirst({ where: reference, select: { id: true } });
  return row === null ? null : asId<ProjectId>(row.id);
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
export async function tokenWorks(db: Db, id: TokenId, now: Date): Promise<boolean> {
  const alive = { revokedAt: null, OR: [{ expiresAt: null }, { expiresAt: { gt: now } }] };
  return (await db.apiToken.count({ where: { id, ...alive } })) > 0;
}

/** False when it was revoked already. */
export async function revokeToken(tx: Tx, id: TokenId, now: Date): Promise<boolean> {
  const { count } = await tx.apiToken.updateMany({
    where: { id, revokedAt: null },
    data: { revokedAt: now },
  });
  return count === 1;
}

export async function secretIsKnown(db: Db, secretHash: Uint8Array): Promise<boolean> {
  return (await db.apiToken.count({ where: { secretHash: Uint8Array.from(secretHash) } })) > 0;
}

export async function nameIsTaken(db: Db, name: string): Promise<boolean> {
  return (await db.apiToken.count({ where: { name, revokedAt: null } })) > 0;
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
  db: Db,
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
export async function touchToken(db: Db, id: TokenId, now: Date, before: Date): Promise<void> {
  await db.apiToken.updateMany({
    where: { id, OR: [{ lastUsedAt: null }, { lastUsedAt: { lt: before } }] },
    data: { lastUsedAt: now },
  });
}

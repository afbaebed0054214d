import { createHash, randomBytes } from "node:crypto";
import type { Database, Sql, Tx } from "../db/client.ts";
import type { Authenticate, ProjectRef } from "../http/auth.ts";
import { type PageRequest, pageWindow, toPage } from "../http/pagination.ts";
import { referenceOf, timestamp } from "../http/schemas.ts";
import type { Clock } from "../lib/clock.ts";
import { DroverError } from "../lib/errors.ts";
import { newId, type TokenId } from "../lib/ids.ts";
import type { CreateToken, Token } from "./token-schemas.ts";
import {
  findLiveToken,
  findProjectId,
  findToken,
  insertToken,
  listTokens,
  lockBootstrap,
  lockTokensThatReachAll,
  nameIsTaken,
  revokeToken,
  secretIsKnown,
  type TokenRow,
  tokenWorks,
  touchToken,
} from "./token-store.ts";

const PREFIX = "drover_";
const SECRET_BYTES = 32;

/** A new secret: 256 random bits, with a prefix by which scanners of source code find leaked ones. */
function newSecret(): string {
  return PREFIX + randomBytes(SECRET_BYTES).toString("base64url");
}

/** Secrets are long and random, so a fast hash without salt keeps them; and the look-up by it leaks no timing. */
function hashOf(secret: string): Uint8Array {
  return createHash("sha256").update(secret).digest();
}

function toToken(row: TokenRow): Token {
  return {
    id: row.id,
    name: row.name,
    project: row.project?.name ?? null,
    createdAt: timestamp(row.createdAt),
    expiresAt: timestamp(row.expiresAt),
    lastUsedAt: timestamp(row.lastUsedAt),
  };
}

/** Creates a token; the secret is in this answer only. Throws `name_taken`, `not_found` (the project). */
export async function createToken(
  tx: Tx,
  request: CreateToken,
  now: Date,
): Promise<{ token: Token; secret: string }> {
  const expiresAt = request.expiresAt === undefined ? null : new Date(request.expiresAt);
  if (expiresAt !== null && expiresAt <= now) {
    const message = "must be in the future";
    throw new DroverError("invalid_request", `The time in expiresAt ${message}.`, {
      violations: [{ pointer: "/expiresAt", message }],
    });
  }
  const projectId =
    request.project === undefined ? null : await findProjectId(tx, referenceOf(request.project));
  if (request.project !== undefined && projectId === null) {
    throw new DroverError("not_found", `There is no project "${request.project}".`);
  }
  const secret = newSecret();
  const id = newId<TokenId>();
  const secretHash = hashOf(secret);
  const row = await insertToken(tx, {
    id,
    name: request.name,
    projectId,
    secretHash,
    createdAt: now,
    expiresAt,
  });
  return { token: toToken(row), secret };
}

/** Throws `not_found` for a revoked one too. */
export async function getToken(db: Sql, idOrName: string): Promise<Token> {
  return toToken(await requireToken(db, idOrName));
}

async function requireToken(db: Sql, idOrName: string): Promise<TokenRow> {
  const row = await findToken(db, referenceOf(idOrName));
  if (row === null) throw new DroverError("not_found", `There is no token "${idOrName}".`);
  return row;
}

const LIST = { list: "tokens", orderBy: "name", filters: {} };

/** A page of the tokens that are not revoked, by name. */
export async function pageOfTokens(
  db: Sql,
  page: PageRequest,
): Promise<{ items: Token[]; nextPageToken?: string }> {
  const rows = await listTokens(db, pageWindow(LIST, page));
  return toPage(LIST, page, rows, (row) => ({ value: row.name, id: row.id }), toToken);
}

/** Revokes a token; it stops working at once. Throws `conflict` for the last one that reaches everything. */
export async function revoke(tx: Tx, idOrName: string, now: Date): Promise<void> {
  const row = await requireToken(tx, idOrName);
  const reachAll = await lockTokensThatReachAll(tx, now);
  if (reachAll.length === 1 && reachAll[0] === row.id) {
    throw new DroverError(
      "conflict",
      `"${row.name}" is the last token that reaches everything. Create another one first, then revoke this one.`,
    );
  }
  await revokeToken(tx, row.id, now);
}

const TOUCH_INTERVAL_MS = 60_000;

/** Makes the look-up that every request with a token goes through. */
export function createAuthenticate(db: Sql, clock: Clock): Authenticate {
  return async (secret, project) => {
    const now = clock.now();
    const asked = project === null ? null : referenceOf(project);
    const token = await findLiveToken(db, hashOf(secret), asked, now);
    if (token === null) return null;
    const before = new Date(now.getTime() - TOUCH_INTERVAL_MS);
    if (token.lastUsedAt === null || token.lastUsedAt < before) await touchToken(db, token.id, now, before);
    const projectIds = token.projectId === null ? "all" : [token.projectId];
    const selected: ProjectRef | null = token.project;
    return { caller: { tokenId: token.id, tokenName: token.name, projectIds }, project: selected };
  };
}

/** Says whether a token still works, for streams that outlive its request. */
export function createTokenWorks(db: Sql, clock: Clock): (id: TokenId) => Promise<boolean> {
  return (id) => tokenWorks(db, id, clock.now());
}

const ADMIN = "admin";

/**
 * Makes sure that somebody can get in. With a configured secret: that it is known (one that was revoked stays
 * revoked). Without: that a token that reaches everything works; else one is made. Returns the secret that was
 * made, to be printed once, or null. Safe to run in several processes at once.
 */
export function ensureAdminToken(
  database: Pick<Database, "transaction">,
  clock: Clock,
  configured?: string,
): Promise<string | null> {
  return database.transaction(async (tx) => {
    await lockBootstrap(tx);
    const now = clock.now();
    if (configured !== undefined) {
      if (!(await secretIsKnown(tx, hashOf(configured)))) await insertAdmin(tx, configured, now);
      return null;
    }
    if ((await lockTokensThatReachAll(tx, now)).length > 0) return null;
    const secret = newSecret();
    await insertAdmin(tx, secret, now);
    return secret;
  });
}

async function insertAdmin(tx: Tx, secret: string, now: Date): Promise<void> {
  const secretHash = hashOf(secret);
  const suffix = Buffer.from(secretHash).toString("hex", 0, 4);
  const name = (await nameIsTaken(tx, ADMIN)) ? `${ADMIN}-${suffix}` : ADMIN;
  const id = newId<TokenId>();
  await insertToken(tx, { id, name, projectId: null, secretHash, createdAt: now, expiresAt: null });
}

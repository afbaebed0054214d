import type { Sql, Tx } from "../db/transaction.ts";
import type { OperationId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";

/** What a key is scoped to. `projectId` is the nil UUID outside projects. */
export interface KeyScope {
  readonly tokenId: string;
  readonly projectId: string;
  readonly method: string;
  readonly path: string;
  readonly key: string;
}

/** The first answer to a key, as it is given again: secrets left out, the operation by its id. */
export interface StoredAnswer {
  readonly requestHash: Uint8Array;
  readonly status: number;
  /** Wrapped, for an answer may have no body. */
  readonly body: JsonObject | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly operationId: OperationId | null;
}

/** How long a key is kept, in hours; DESIGN: "kept 24 h". */
export const KEY_LIFETIME_HOURS = 24;
const HOUR_MS = 3_600_000;

// Sets our advisory locks apart from those of other kinds over the same 64 bits.
const LOCK_SEED = 7420;

/**
 * Takes the key until the transaction ends. False: another request holds it and is not answered yet. The lock is
 * given back after the commit is visible, so whoever gets it next sees the stored answer (in a new statement).
 */
export async function lockKey(tx: Tx, scope: KeyScope): Promise<boolean> {
  const text = JSON.stringify([scope.tokenId, scope.projectId, scope.method, scope.path, scope.key]);
  const rows = await tx.$queryRaw<{ locked: boolean }[]>`
    SELECT pg_try_advisory_xact_lock(hashtextextended(${text}, ${LOCK_SEED})) AS locked`;
  return rows[0]?.locked === true;
}

/** The stored answer of a key that is not older than a day; null: the key is free. */
export async function findAnswer(tx: Tx, scope: KeyScope, now: Date): Promise<StoredAnswer | null> {
  const [row] = await tx.$queryRaw<StoredAnswer[]>`
    SELECT request_hash AS "requestHash", status, body, headers, operation_id AS "operationId" FROM idempotency_key
    WHERE token_id = ${scope.tokenId}::uuid AND project_id = ${scope.projectId}::uuid AND method = ${scope.method}
      AND path = ${scope.path} AND key = ${scope.key} AND created_at > ${oldest(now)}`;
  return row ?? null;
}

/** Keeps the answer of a key, in the transaction of the change that it answers. An outlived one is replaced. */
export async function saveAnswer(tx: Tx, scope: KeyScope, answer: StoredAnswer, now: Date): Promise<void> {
  await tx.$executeRaw`
    INSERT INTO idempotency_key (token_id, project_id, method, path, key, request_hash, status, body, headers,
                                 operation_id, created_at)
    VALUES (${scope.tokenId}::uuid, ${scope.projectId}::uuid, ${scope.method}, ${scope.path}, ${scope.key},
            ${answer.requestHash}, ${answer.status}, ${JSON.stringify(answer.body ?? {})}::jsonb,
            ${JSON.stringify(answer.headers)}::jsonb, ${answer.operationId}::uuid, ${now})
    ON CONFLICT (token_id, project_id, method, path, key) DO UPDATE SET request_hash = EXCLUDED.request_hash,
      status = EXCLUDED.status, body = EXCLUDED.body, headers = EXCLUDED.headers, operation_id = EXCLUDED.operation_id,
      created_at = EXCLUDED.created_at`;
}

/** Deletes at most `limit` outlived keys; returns how many. Any number of processes may do it at once. */
export async function deleteOutlivedKeys(db: Sql, now: Date, limit: number): Promise<number> {
  return await db.$executeRaw`
    DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM idempotency_key WHERE created_at < ${oldest(now)} LIMIT ${limit}::int
      FOR UPDATE SKIP LOCKED))`;
}

function oldest(now: Date): Date {
  return new Date(now.getTime() - KEY_LIFETIME_HOURS * HOUR_MS);
}

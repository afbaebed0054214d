import { randomUUID } from "node:crypto";
import pg from "pg";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import {
  type AppliedMigration,
  howToResolve,
  MIGRATIONS_DIRECTORY,
  type Migration,
  planMigrations,
  readMigrations,
} from "./migrations.ts";
import { refuseOldServer } from "./server-version.ts";
import { DatabaseSetupError } from "./setup-error.ts";
import { sqlStateOf } from "./sql-state.ts";

export interface MigrateOptions {
  readonly url: string;
  readonly logger: Log;
  /** Where the migrations lie; the repository's own without. */
  readonly directory?: string;
  /** How long to wait for another process that migrates, in seconds; 120 without. */
  readonly lockTimeoutSeconds?: number;
}

// The key that Prisma's schema engine takes, so that a start and `prisma migrate` never run at once.
const PRISMA_LOCK_KEY = 72_707_369;

// As Prisma's schema engine creates it.
const CREATE_HISTORY = `CREATE TABLE IF NOT EXISTS _prisma_migrations (
  id VARCHAR(36) PRIMARY KEY NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  finished_at TIMESTAMPTZ,
  migration_name VARCHAR(255) NOT NULL,
  logs TEXT,
  rolled_back_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  applied_steps_count INTEGER NOT NULL DEFAULT 0
)`;

// Tables in the schema that no extension brought along.
const FOREIGN_TABLES = `SELECT c.relname AS name FROM pg_class c
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY 1 LIMIT 3`;

/**
 * Brings the database to this release's schema and returns the names of the migrations applied now. Writes the
 * history exactly as `prisma migrate deploy` does, so that the Prisma CLI agrees with it.
 *
 * Safe to call from any number of processes at once: one applies, the others wait and find nothing to do. Throws a
 * DatabaseSetupError that says what to do when the history or the server cannot be used, or a migration fails.
 */
export async function migrate(options: MigrateOptions): Promise<readonly string[]> {
  const migrations = await readMigrations(options.directory ?? MIGRATIONS_DIRECTORY);
  const client = new pg.Client({
    connectionString: options.url,
    application_name: "drover-migrate",
  });
  // A connection that breaks rejects the query under way; without a listener it would also end the process.
  client.on("error", (error) => {
    options.logger.debug({ error: error.message }, "the migrator's connection broke");
  });
  await client.connect();
  try {
    await refuseOldServer(client);
    await takeLock(client, options.lockTimeoutSeconds ?? 120);
    await ensureHistory(client);
    const { pending, unknown } = planMigrations(migrations, await readHistory(client));
    if (unknown.length > 0)
      options.logger.warn({ migrations: unknown }, "the database was migrated by a newer release");
    for (const migration of pending) {
      await apply(client, migration);
      options.logger.info({ migration: migration.name }, "applied a migration");
    }
    return pending.map((migration) => migration.name);
  } finally {
    await client.end();
  }
}

/** The lock is the session's: it falls with the connection, however the process ends. */
async function takeLock(client: pg.Client, timeoutSeconds: number): Promise<void> {
  await client.query("SELECT set_config('lock_timeout', $1, false)", [`${timeoutSeconds}s`]);
  try {
    await client.query("SELECT pg_advisory_lock($1)", [PRISMA_LOCK_KEY]);
  } catch (cause) {
    if (sqlStateOf(cause) !== "55P03") throw cause;
    const message = `Another process has been migrating this database for ${timeoutSeconds} seconds. Wait for it to end, or end it, then start again.`;
    throw new DatabaseSetupError(message, { cause });
  }
}

async function ensureHistory(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ exists: boolean }>(
    "SELECT to_regclass('_prisma_migrations') IS NOT NULL AS exists",
  );
  if (rows[0]?.exists === true) return;
  const foreign = await client.query<{ name: string }>(FOREIGN_TABLES);
  if (foreign.rows.length > 0) {
    const names = foreign.rows.map((row) => row.name).join(", ");
    throw new DatabaseSetupError(
      `The database holds tables that are not Drover's (${names}). Give Drover an empty database in DATABASE_URL.`,
    );
  }
  await client.query(CREATE_HISTORY);
}

async function readHistory(client: pg.Client): Promise<readonly AppliedMigration[]> {
  const { rows } = await client.query<AppliedMigration>(
    `SELECT migration_name AS name, checksum, finished_at IS NOT NULL AS finished, logs
     FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at`,
  );
  return rows;
}

/** Schema change and record commit together, so that a process killed in between leaves nothing half done. */
async function apply(client: pg.Client, migration: Migration): Promise<void> {
  const startedAt = new Date();
  try {
    await client.query("BEGIN");
    const transactionId = await currentTransaction(client);
    await client.query(migration.sql);
    if ((await currentTransaction(client)) !== transactionId)
      throw new DatabaseSetupError(
        "the migration ends the transaction it runs in; take its COMMIT or ROLLBACK out",
      );
    await client.query(
      `INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
       VALUES ($1, $2, $3, $4, clock_timestamp(), 1)`,
      [randomUUID(), migration.checksum, migration.name, startedAt],
    );
    await client.query("COMMIT");
  } catch (cause) {
    throw await recordFailure(client, migration, startedAt, cause);
  }
}

async function currentTransaction(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ id: string }>("SELECT pg_current_xact_id()::text AS id");
  return rows[0]?.id ?? "";
}

/**
 * Rolls back, and writes the failure down so that the next start refuses until a person has looked. What will pass
 * by itself (a lost connection, a lock, a full disk) is not written down: the next start simply tries again.
 */
async function recordFailure(
  client: pg.Client,
  migration: Migration,
  startedAt: Date,
  cause: unknown,
): Promise<DatabaseSetupError> {
  const reason = messageOf(cause);
  const failed = `Migration ${migration.name} failed: ${reason}`;
  if (passesByItself(sqlStateOf(cause)) || !(await rollBack(client)))
    return new DatabaseSetupError(`${failed}\nStart again when the cause has gone.`, { cause });
  await client.query(
    "INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, logs) VALUES ($1, $2, $3, $4, $5)",
    [randomUUID(), migration.checksum, migration.name, startedAt, reason],
  );
  return new DatabaseSetupError(`${failed}\n${howToResolve(migration.name)}`, { cause });
}

/** False when the connection is gone, and with it the transaction. */
async function rollBack(client: pg.Client): Promise<boolean> {
  return client.query("ROLLBACK").then(
    () => true,
    () => false,
  );
}

/** By SQLSTATE class: 08 connection, 40 deadlock or serialization, 53 resources, 55P03 lock, 57 the server stops. */
function passesByItself(sqlState: string | null): boolean {
  return sqlState !== null && (/^(08|40|53|57)/.test(sqlState) || sqlState === "55P03");
}

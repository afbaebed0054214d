import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DatabaseSetupError } from "./setup-error.ts";

/** A migration as it lies on the disk; `checksum` is the SHA-256 of the file, in hex. */
export interface Migration {
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

/** A row of `_prisma_migrations` that was not rolled back. */
export interface AppliedMigration {
  readonly name: string;
  readonly checksum: string;
  readonly finished: boolean;
  readonly logs: string | null;
}

/** The repository's migrations; the same path from src/db and from dist/db. */
export const MIGRATIONS_DIRECTORY = fileURLToPath(new URL("../../prisma/migrations", import.meta.url));

/** Reads all migrations in the order of their names, which begin with their time. */
export async function readMigrations(directory: string): Promise<readonly Migration[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const names = entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  if (names.length === 0)
    throw new DatabaseSetupError(`There are no migrations in ${directory}; reinstall Drover.`);
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(join(directory, name, "migration.sql"), "utf8");
      return { name, sql, checksum: sha256(sql) };
    }),
  );
}

/**
 * Decides what is left to apply. Throws a DatabaseSetupError when the database's history cannot go on: a migration
 * failed earlier, was changed after it was applied, or the history is another program's.
 *
 * Applied migrations that are not on the disk are allowed: a newer release has run here, and migrations only
 * expand what an older release still uses.
 */
export function planMigrations(
  migrations: readonly Migration[],
  applied: readonly AppliedMigration[],
): {
  readonly pending: readonly Migration[];
  readonly unknown: readonly string[];
} {
  const failed = applied.find((row) => !row.finished);
  if (failed !== undefined) throw failedEarlier(failed);
  const onDisk = new Map(migrations.map((migration) => [migration.name, migration]));
  const unknown = applied.filter((row) => !onDisk.has(row.name)).map((row) => row.name);
  if (applied.length > 0 && unknown.length === applied.length) throw anotherProgram(unknown);
  for (const row of applied) {
    const migration = onDisk.get(row.name);
    if (migration !== undefined && !sameContent(migration, row.checksum))
      throw changedAfterwards(migration, row);
  }
  const done = new Set(applied.map((row) => row.name));
  return {
    pending: migrations.filter((migration) => !done.has(migration.name)),
    unknown,
  };
}

/** Like Prisma, a checkout that changed only the line endings counts as the same file. */
function sameContent(migration: Migration, checksum: string): boolean {
  if (migration.checksum === checksum) return true;
  const unix = migration.sql.replaceAll("\r\n", "\n");
  return sha256(unix) === checksum || sha256(unix.replaceAll("\n", "\r\n")) === checksum;
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function failedEarlier(row: AppliedMigration): DatabaseSetupError {
  return new DatabaseSetupError(
    `Migration ${row.name} failed earlier: ${row.logs ?? "no details were recorded"}\n` +
      howToResolve(row.name),
  );
}

/** What a person does after a migration has failed. */
export function howToResolve(name: string): string {
  return (
    `Put right what it says, then allow another attempt with \`npm run prisma -- migrate resolve --rolled-back ${name}\`, ` +
    `with DATABASE_URL set, or DROVER_DATA_DIR for the embedded database.`
  );
}

function changedAfterwards(migration: Migration, row: AppliedMigration): DatabaseSetupError {
  return new DatabaseSetupError(
    `Migration ${migration.name} was changed after it was applied (SHA-256 now ${migration.checksum}, applied ${row.checksum}). ` +
      "Restore the file from the release that applied it, and put the change into a new migration.",
  );
}

function anotherProgram(names: readonly string[]): DatabaseSetupError {
  return new DatabaseSetupError(
    `The database holds another program's migrations (${names.slice(0, 3).join(", ")}). Give Drover a database of its own in DATABASE_URL.`,
  );
}

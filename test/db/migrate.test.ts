import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { migrate } from "../../src/db/migrate.ts";
import { MIGRATIONS_DIRECTORY } from "../../src/db/migrations.ts";
import { DatabaseSetupError } from "../../src/db/setup-error.ts";
import { createEmptyDatabase, execute } from "../fixtures/database.ts";
import { silentLog } from "../fixtures/log.ts";

const WRAPPER = fileURLToPath(new URL("../../prisma/prisma.mjs", import.meta.url));
const SCHEMA = fileURLToPath(new URL("../../prisma/schema.prisma", import.meta.url));

let database: Awaited<ReturnType<typeof createEmptyDatabase>>;
let directory: string;
beforeEach(async () => {
  database = await createEmptyDatabase();
  directory = mkdtempSync(join(tmpdir(), "drover-migrations-"));
});
afterEach(async () => {
  await database.drop();
  rmSync(directory, { recursive: true, force: true });
});

const run = (logger = silentLog) => migrate({ url: database.url, logger, directory });
const tables = async () =>
  (
    await execute<{ name: string }>(
      database.url,
      "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    )
  ).map(({ name }) => name);

function write(name: string, sql: string): void {
  mkdirSync(join(directory, name), { recursive: true });
  writeFileSync(join(directory, name, "migration.sql"), sql);
}

/** Runs the Prisma CLI against the test's database; `status` is its exit status. */
function prisma(...args: string[]): Promise<{ readonly status: number; readonly output: string }> {
  const env = { ...process.env, DATABASE_URL: database.url };
  return new Promise((resolve) => {
    const cli = execFile(process.execPath, [WRAPPER, ...args], { env }, (_, stdout, stderr) => {
      resolve({ status: cli.exitCode ?? 1, output: stdout + stderr });
    });
  });
}

describe("the repository's migrations", () => {
  beforeEach(() => {
    cpSync(MIGRATIONS_DIRECTORY, directory, { recursive: true });
  });

  it("apply once, and the Prisma CLI agrees that all are applied", async () => {
    expect((await prisma("migrate", "status")).status).toBe(1);
    expect(await run()).not.toHaveLength(0);
    expect(await run()).toEqual([]);
    const { status, output } = await prisma("migrate", "status");
    expect(output).toContain("up to date");
    expect(status).toBe(0);
    expect((await prisma("migrate", "deploy")).output).toContain("No pending migrations");
  });

  it("apply after a failure that was put right and resolved with the Prisma CLI", async () => {
    await execute(database.url, "CREATE SEQUENCE operation_seq");
    await expect(run()).rejects.toThrow(/migrate resolve --rolled-back 20261123000000_init/);
    await execute(database.url, "DROP SEQUENCE operation_seq");
    await expect(run()).rejects.toThrow(/failed earlier/);
    const resolved = await prisma("migrate", "resolve", "--rolled-back", "20261123000000_init");
    expect(resolved.output).toContain("marked as rolled back");
    expect(await run()).toContain("20261123000000_init");
    expect((await prisma("migrate", "status")).status).toBe(0);
  });

  it("leave nothing to do after `prisma migrate deploy`", async () => {
    expect((await prisma("migrate", "deploy")).status).toBe(0);
    expect(await run()).toEqual([]);
  });

  it("make exactly the schema of schema.prisma", async () => {
    const diff = [
      "migrate",
      "diff",
      "--from-migrations",
      MIGRATIONS_DIRECTORY,
      "--to-schema",
      SCHEMA,
      "--exit-code",
    ];
    const { status, output } = await prisma(...diff);
    expect(output).toContain("No difference");
    expect(status).toBe(0);
  });

  it("make every index that schema.prisma asks for in its SQL lines", async () => {
    await run();
    const asked = [...readFileSync(SCHEMA, "utf8").matchAll(/\/\/ SQL: (?:unique )?index (\w+)/g)].map(
      (match) => match[1],
    );
    const rows = await execute<{ name: string }>(database.url, "SELECT indexname AS name FROM pg_indexes");
    expect(asked.length).toBeGreaterThan(0);
    expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining(asked));
  });
});

describe("migrate", () => {
  beforeEach(() => {
    write("1_first", "CREATE TABLE first (id int);");
  });

  it("applies each migration once when several processes start at once", async () => {
    write("2_second", "CREATE TABLE second (id int); SELECT pg_sleep(0.3);");
    const applied = await Promise.all(Array.from({ length: 4 }, () => run()));
    expect(applied.flat().sort()).toEqual(["1_first", "2_second"]);
  });

  it("refuses a migration that was changed after it was applied, and applies nothing", async () => {
    await run();
    write("1_first", "CREATE TABLE first (id bigint);");
    write("2_second", "CREATE TABLE second (id int);");
    await expect(run()).rejects.toThrow(/1_first was changed after it was applied/);
    expect(await tables()).toEqual(["_prisma_migrations", "first"]);
  });

  it("takes a file whose line endings alone changed for the same", async () => {
    write("1_first", "CREATE TABLE first (\n id int\n);\n");
    await run();
    write("1_first", "CREATE TABLE first (\r\n id int\r\n);\r\n");
    expect(await run()).toEqual([]);
  });

  it("rolls a failing migration back, refuses to go on, and tries again once it is resolved", async () => {
    write("2_second", "CREATE TABLE second (id int); SELECT 1/0;");
    await expect(run()).rejects.toThrow(
      /2_second failed: division by zero[^]*migrate resolve --rolled-back 2_second/,
    );
    expect(await tables()).toEqual(["_prisma_migrations", "first"]);
    write("2_second", "CREATE TABLE second (id int);");
    await expect(run()).rejects.toThrow(/2_second failed earlier: division by zero/);
    await execute(
      database.url,
      "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = '2_second' AND finished_at IS NULL",
    );
    expect(await run()).toEqual(["2_second"]);
  });

  it("tries again by itself after a failure that passes, such as a lock not had in time", async () => {
    write(
      "2_second",
      "DO $$ BEGIN IF to_regclass('first') IS NOT NULL AND NOT EXISTS (SELECT FROM first) THEN RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END IF; END $$;",
    );
    await expect(run()).rejects.toThrow(/2_second failed: busy/);
    await execute(database.url, "INSERT INTO first VALUES (1)");
    expect(await run()).toEqual(["2_second"]);
  });

  it("refuses a migration that ends its transaction", async () => {
    write("2_second", "CREATE TABLE second (id int); COMMIT;");
    await expect(run()).rejects.toThrow(/ends the transaction/);
  });

  it("refuses a database with tables of somebody else", async () => {
    await execute(database.url, "CREATE TABLE invoices (id int)");
    await expect(run()).rejects.toThrow(/not Drover's \(invoices\)/);
    expect(await tables()).toEqual(["invoices"]);
  });

  it("refuses a database that another program migrates with Prisma", async () => {
    await run();
    rmSync(join(directory, "1_first"), { recursive: true });
    write("9_other", "CREATE TABLE other (id int);");
    await expect(run()).rejects.toThrow(/another program's migrations \(1_first\)/);
  });

  it("goes on with a history that a newer release has continued, and says so", async () => {
    write("2_newer", "CREATE TABLE newer (id int);");
    await run();
    rmSync(join(directory, "2_newer"), { recursive: true });
    const warnings: unknown[] = [];
    expect(await run({ ...silentLog, warn: (facts: unknown) => warnings.push(facts) })).toEqual([]);
    expect(warnings).toEqual([{ migrations: ["2_newer"] }]);
  });

  it("says who is in the way when the lock is not free in time", async () => {
    const holder = execute(database.url, "SELECT pg_advisory_lock(72707369), pg_sleep(3)");
    await expect
      .poll(() => execute(database.url, "SELECT FROM pg_locks WHERE locktype = 'advisory'"))
      .not.toHaveLength(0);
    const failed = migrate({ url: database.url, logger: silentLog, directory, lockTimeoutSeconds: 1 });
    await expect(failed).rejects.toThrow(DatabaseSetupError);
    await holder;
  });
});

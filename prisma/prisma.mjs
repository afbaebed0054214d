#!/usr/bin/env node
// The Prisma CLI with our configuration. Where its native schema engine is not on the disk (it is downloaded from
// Prisma's own host, which a closed network cannot reach) the WebAssembly build of the same engine stands in.
// docs/decisions/0004-prisma-schema-engine.md says why. `generate` runs on Node >= 20, without a build.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CONFIG = join(ROOT, ".config/prisma.config.ts");
const SCHEMA = join(ROOT, "prisma/schema.prisma");
const STAND_IN = join(ROOT, "prisma/schema-engine.mjs");
const GENERATED = join(ROOT, "src/db/generated");
const STAMP = join(GENERATED, ".generated-from");

const require = createRequire(import.meta.url);

/** @returns {string} the directory of the installed package */
function packageDirectory(/** @type {string} */ name, from = require) {
  return dirname(from.resolve(`${name}/package.json`));
}

const cli = packageDirectory("prisma");

/** True where the native schema engine lies beside its package, put there by its install script. */
function hasNativeEngine() {
  const engines = packageDirectory("@prisma/engines", createRequire(join(cli, "package.json")));
  return readdirSync(engines).some((file) => file.startsWith("schema-engine-"));
}

/** Identifies what the generated client is made from: the schema, the generator's version, the settings. */
function generationKey() {
  const hash = createHash("sha256");
  for (const file of [SCHEMA, CONFIG, join(cli, "package.json")])
    hash.update(readFileSync(file)).update("\0");
  return hash.digest("hex");
}

/** True when the client on the disk was made from exactly these inputs, so that an install costs nothing twice. */
function isGenerated(/** @type {string} */ key) {
  return existsSync(STAMP) && readFileSync(STAMP, "utf8") === key;
}

/** Prisma empties the shadow database before use: a wrong URL there would cost somebody's data. We need none. */
function refuseShadowDatabase(/** @type {string[]} */ args) {
  const named = args.some((arg) => arg.startsWith("--shadow-database-url"));
  if (!named && !/\bshadowDatabaseUrl\b/.test(readFileSync(CONFIG, "utf8"))) return;
  process.stderr.write(
    "An explicit shadow database is refused: Prisma would empty it. Leave shadowDatabaseUrl out; a temporary database is made and dropped on the server of DATABASE_URL.\n",
  );
  process.exit(2);
}

/** @returns {number} the exit status of the CLI */
function runCli(/** @type {string[]} */ args, databaseUrl = process.env.DATABASE_URL ?? "") {
  /** @type {NodeJS.ProcessEnv} */
  const env = {
    CHECKPOINT_DISABLE: "1",
    PRISMA_HIDE_UPDATE_MESSAGE: "1",
    ...process.env,
    DATABASE_URL: databaseUrl,
  };
  if (!hasNativeEngine()) env.PRISMA_SCHEMA_ENGINE_BINARY ??= STAND_IN;
  const options = { stdio: /** @type {const} */ ("inherit"), env, cwd: ROOT };
  const result = spawnSync(
    process.execPath,
    [join(cli, "build/index.js"), ...args, "--config", CONFIG],
    options,
  );
  if (result.error) throw result.error;
  return result.status ?? 1;
}

/**
 * Runs a command that needs a database where DATABASE_URL names none: on the embedded one of DROVER_DATA_DIR, or,
 * to write or compare migrations, on one that is thrown away.
 */
async function runOnEmbedded(/** @type {string[]} */ args) {
  const throwAway = args[0] === "migrate" && ["dev", "diff"].includes(args[1] ?? "");
  const dataDir = throwAway ? mkdtempSync(join(tmpdir(), "drover-prisma-")) : process.env.DROVER_DATA_DIR;
  if (!dataDir) {
    process.stderr.write("Which database? Set DATABASE_URL, or DROVER_DATA_DIR for the embedded one.\n");
    return 2;
  }
  const logger = { debug() {}, info() {}, warn: console.error, error: console.error };
  const { removeEmbeddedPostgres, startEmbeddedPostgres } = await import("../src/db/embedded-postgres.ts");
  try {
    const server = await startEmbeddedPostgres({ dataDir, logger });
    const status = runCli(args, server.url);
    await server.stop();
    return status;
  } finally {
    if (throwAway) {
      await removeEmbeddedPostgres({ dataDir });
      rmSync(dataDir, { recursive: true, force: true });
    }
  }
}

async function main() {
  const args = process.argv.slice(2);
  refuseShadowDatabase(args);
  const needsDatabase = ["migrate", "db", "studio"].includes(args[0] ?? "");
  if (needsDatabase && !process.env.DATABASE_URL) return runOnEmbedded(args);
  if (args[0] !== "generate" || args.length > 1) return runCli(args);
  const key = generationKey();
  if (isGenerated(key)) return 0;
  rmSync(STAMP, { force: true });
  const status = runCli(args);
  if (status === 0) {
    mkdirSync(GENERATED, { recursive: true });
    writeFileSync(STAMP, key);
  }
  return status;
}

process.exit(await main());

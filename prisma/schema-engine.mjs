#!/usr/bin/env node
// Stand-in for Prisma's native `schema-engine`: the same commands and the same JSON-RPC on stdin and stdout, served
// by the official WebAssembly build of the engine (npm, same commit). The CLI starts it; see prisma.mjs.
import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { canConnect, createDatabase, migrationAdapter } from "./schema-engine-database.mjs";

const require = createRequire(import.meta.url);
const argv = process.argv.slice(2);

// The native binary's error code for "a command failed, look into data".
const COMMAND_FAILED = 4466;
// Any id does for the `print` call that we make to the CLI: its reply is not awaited.
const PRINT_CALL_ID = 1_000_000_000;

/** Values of a repeatable command line option. */
function option(/** @type {string} */ name) {
  return argv.flatMap((arg, index) => (arg === name ? [argv[index + 1] ?? ""] : []));
}

/** Writes a line to standard error in the form that the CLI reads. */
function log(/** @type {"INFO" | "ERROR"} */ level, /** @type {string} */ message, fields = {}) {
  const line = {
    timestamp: new Date().toISOString(),
    level,
    fields: { message, ...fields },
    target: "schema_engine::logger",
  };
  writeSync(2, `${JSON.stringify(line)}\n`);
}

function readDatasource() {
  const datasource = JSON.parse(option("--datasource")[0] ?? "{}");
  if (datasource.shadowDatabaseUrl) {
    log("ERROR", "shadowDatabaseUrl is refused: the engine would empty that database.", {
      error_code: "P1014",
      is_panic: false,
    });
    process.exit(1);
  }
  return /** @type {{ url?: string }} */ (datasource);
}

/** `schema-engine cli can-connect-to-database | create-database` */
async function runCommand(/** @type {string | undefined} */ command, /** @type {string} */ url) {
  log("INFO", "Starting schema engine CLI");
  const failure =
    command === "can-connect-to-database"
      ? await canConnect(url)
      : await createDatabase(url).then(
          () => null,
          (error) => ({ code: "P1014", message: error.message }),
        );
  if (failure) {
    log("ERROR", failure.message, {
      error_code: failure.code,
      is_panic: false,
    });
    return 1;
  }
  log("INFO", "ok");
  return 0;
}

/** Instantiates the engine's WebAssembly by hand: its package expects a bundler to do so. */
async function loadWasm() {
  const directory = dirname(require.resolve("@prisma/schema-engine-wasm"));
  const bindings = await import(pathToFileURL(join(directory, "schema_engine_bg.js")).href);
  const bytes = readFileSync(join(directory, "schema_engine_bg.wasm"));
  const { instance } = await WebAssembly.instantiate(bytes, {
    "./schema_engine_bg.js": bindings,
  });
  bindings.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  globalThis.PRISMA_WASM_PANIC_REGISTRY = {
    set_message(/** @type {string} */ message) {
      this.message = message;
    },
  };
  return bindings;
}

/** Serves the CLI's calls, one line of JSON each, until it closes our standard input. */
async function serve(/** @type {string | undefined} */ url) {
  const datamodels = option("--datamodels").map((path) => [path, readFileSync(path, "utf8")]);
  const bindings = await loadWasm();
  const newEngine = async () =>
    bindings.SchemaEngine.new(
      { datamodels: datamodels.length > 0 ? datamodels : undefined },
      (/** @type {unknown} */ message) => log("INFO", String(message)),
      await migrationAdapter(url),
    );
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    const { id, method, params } = JSON.parse(line);
    if (method === undefined) continue; // the reply to our own `print`
    try {
      const result =
        method === "createDatabase"
          ? { databaseName: await createDatabase(url) }
          : await call(await newEngine(), method, params);
      send({ id, jsonrpc: "2.0", result: result ?? {} });
    } catch (error) {
      const known = error?.code ? { error_code: error.code } : {};
      const data = {
        is_panic: false,
        message: error?.message ?? String(error),
        meta: error?.meta ?? null,
        ...known,
      };
      send({
        id,
        jsonrpc: "2.0",
        error: {
          code: COMMAND_FAILED,
          message: "An error happened. Check the data field for details.",
          data,
        },
      });
    }
  }
}

/** One call on an engine of its own: an engine that has applied migrations forgets its shadow database's schema. */
async function call(engine, /** @type {string} */ method, params) {
  if (method === "getDatabaseVersion") return engine.version(params);
  if (method === "diff") {
    const { exitCode, stdout } = await engine.diff(params);
    if (stdout != null)
      send({
        id: PRINT_CALL_ID,
        jsonrpc: "2.0",
        method: "print",
        params: { content: stdout },
      });
    return { exitCode, stdout: null };
  }
  // These two look the shadow database's schema up in the engine's cache, which only devDiagnostic fills.
  if (method === "evaluateDataLoss" || method === "createMigration")
    await engine.devDiagnostic({
      migrationsList: params.migrationsList,
      filters: params.filters,
    });
  return engine[method](params);
}

function send(/** @type {object} */ message) {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

async function main() {
  if (argv[0] === "--version") {
    printVersion();
    return 0;
  }
  const { url } = readDatasource();
  const cli = argv.indexOf("cli");
  if (cli >= 0) return runCommand(argv[cli + 1], url ?? "");
  await serve(url);
  return 0;
}

function printVersion() {
  const { enginesVersion } = require("@prisma/engines-version");
  writeSync(1, `schema-engine-cli ${enginesVersion} (WebAssembly)\n`);
}

process.exit(await main());

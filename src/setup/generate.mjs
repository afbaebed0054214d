// npm run generate: writes every file that is made from the code and committed.
// With --check it changes nothing and ends with status 1 where a committed file is not what would be written.
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { readContractRuns, renderCapabilities } from "./generate-capabilities.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment, runsTypeScript } from "./project.mjs";
import { runToEnd } from "./run-program.mjs";

/**
 * What is generated, in order: a path in the project, and what writes it. `root` is a directory like the project's
 * that holds what was generated before; a generator writes below it, to the same path.
 * @type {readonly { path: string, generate: (root: string) => Promise<void> }[]}
 */
const GENERATORS = [
  { path: "openapi/openapi.json", generate: generateOpenApi },
  { path: "openapi/sdk", generate: generateSdk },
  { path: "docs/capabilities.md", generate: generateCapabilities },
];

/** @param {string} root */
async function generateOpenApi(root) {
  const { writeOpenApi } = await import("../openapi.ts");
  await mkdir(join(root, "openapi"), { recursive: true });
  await writeFile(join(root, "openapi/openapi.json"), await writeOpenApi());
}

/** @param {string} root */
async function generateCapabilities(root) {
  const { CAPABILITY_DESCRIPTIONS } = await import("../hypervisors/capabilities.ts");
  await mkdir(join(root, "docs"), { recursive: true });
  const page = renderCapabilities(readContractRuns(), CAPABILITY_DESCRIPTIONS);
  await writeFile(join(root, "docs/capabilities.md"), page);
}

/** @param {string} root */
async function generateSdk(root) {
  const { createClient } = await import("@hey-api/openapi-ts");
  await createClient({
    input: join(root, "openapi/openapi.json"),
    // Node runs the files as they are, so imports name them in full.
    output: { path: join(root, "openapi/sdk"), module: { extension: ".ts" }, postProcess: [] },
    plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
    logs: { level: "silent" },
  });
  await excuseRuntime(join(root, "openapi/sdk"));
}

/**
 * The client's own code, the same in every SDK, is not written for our strictest settings; its types are still used.
 * The functions and types that are made from the document are checked like all else.
 * @param {string} sdk
 */
async function excuseRuntime(sdk) {
  for (const folder of ["client", "core"]) {
    for (const name of await readdir(join(sdk, folder))) {
      const path = join(sdk, folder, name);
      await writeFile(path, `// @ts-nocheck\n${await readFile(path, "utf8")}`);
    }
  }
}

/**
 * @param {string} path a file or a directory
 * @returns {Promise<Map<string, string>>} the text of each file by its path below `path`, which is "" for a file itself
 */
async function textsOf(path) {
  const found = await stat(path).catch(() => null);
  if (found === null) return new Map();
  if (found.isFile()) return new Map([["", await readFile(path, "utf8")]]);
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(
    await Promise.all(
      files
        .sort()
        .map(
          async (file) => /** @type {const} */ ([file.slice(path.length + 1), await readFile(file, "utf8")]),
        ),
    ),
  );
}

/**
 * @param {Map<string, string>} committed
 * @param {Map<string, string>} generated
 * @returns {string[]} a line for each file that differs, with the first line in which it does
 */
function differences(committed, generated) {
  const names = [...new Set([...committed.keys(), ...generated.keys()])].sort();
  return names.flatMap((name) => {
    const old = committed.get(name);
    const now = generated.get(name);
    if (old === now) return [];
    if (old === undefined) return [`${name}: is missing`];
    if (now === undefined) return [`${name}: is not generated any more`];
    const oldLines = old.split("\n");
    const nowLines = now.split("\n");
    const at = nowLines.findIndex((line, index) => line !== oldLines[index]);
    const line = at === -1 ? nowLines.length : at;
    return [`${name}:${line + 1}:\n  - ${oldLines[line] ?? "(end)"}\n  + ${nowLines[line] ?? "(end)"}`];
  });
}

/**
 * @param {boolean} checkOnly
 * @returns {Promise<boolean>} whether every committed file is as generated, or is now
 */
async function generateAll(checkOnly) {
  const root = await mkdtemp(join(tmpdir(), "drover-generate-"));
  let same = true;
  try {
    for (const { path, generate } of GENERATORS) {
      await generate(root);
      const target = join(PROJECT_DIR, path);
      const lines = differences(await textsOf(target), await textsOf(join(root, path)));
      if (lines.length === 0) continue;
      if (checkOnly) {
        same = false;
        process.stdout.write(`${path} is not up to date; run npm run generate.\n${lines.join("\n")}\n`);
        continue;
      }
      await rm(target, { recursive: true, force: true });
      await mkdir(dirname(target), { recursive: true });
      await cp(join(root, path), target, { recursive: true });
      process.stdout.write(`${path}: ${lines.length} file(s) written\n`);
    }
  } finally {
    await rm(root, { recursive: true, force: true });
  }
  return same;
}

if (runsTypeScript()) {
  process.exitCode = (await generateAll(process.argv.includes("--check"))) ? 0 : 1;
} else {
  const outcome = await runToEnd(pinnedNode(), process.argv.slice(1), { env: projectEnvironment() });
  process.stdout.write(outcome.stdout);
  process.stderr.write(outcome.stderr);
  process.exitCode = outcome.status ?? 1;
}

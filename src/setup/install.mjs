// Makes a checkout ready to run: npm packages as the lockfile says, and the generated database client. Does nothing,
// quickly, where all is there.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment, runsTypeScript } from "./project.mjs";
import { run, runVisibly } from "./run-program.mjs";

const MODULES = join(PROJECT_DIR, "node_modules");
const STAMP = join(MODULES, ".drover-installed");

/**
 * Installs what is missing.
 * @param {{ log?: import("./progress.mjs").Log }} [options]
 */
export async function ensureInstalled({ log = logLine } = {}) {
  const wanted = lockfileDigest();
  if (!existsSync(STAMP) || readFileSync(STAMP, "utf8") !== wanted) {
    await withProgress(log, "installing npm packages", installPackages);
    writeFileSync(STAMP, wanted);
  }
  await withProgress(log, "generating the database client", () =>
    run(pinnedNode(), [join(PROJECT_DIR, "prisma/prisma.mjs"), "generate"], {
      cwd: PROJECT_DIR,
      env: projectEnvironment(),
    }),
  );
}

/** The lockfile with what npm is told about platforms and scripts: when any of it changes, packages may. */
function lockfileDigest() {
  const files = ["package.json", "package-lock.json", ".npmrc"].map((name) =>
    readFileSync(join(PROJECT_DIR, name)),
  );
  return files.reduce((hash, file) => hash.update(file).update("\0"), createHash("sha256")).digest("hex");
}

/**
 * Installs what the lockfile says, and leaves it as it is. Not `npm ci`: that refuses a lockfile without the packages made
 * for other platforms, which it lacks when it was written where those were out of reach, and it empties a tree in use.
 */
async function installPackages() {
  // Development packages build the database client, and the optional ones hold Node and Postgres.
  const args = ["install", "--no-save", "--include=dev", "--include=optional"];
  await run("npm", args, { cwd: PROJECT_DIR });
}

/**
 * Makes sure that the calling script runs on the project's own Node: where it does not, runs it again there and ends
 * this process with its status.
 */
export async function requirePinnedNode() {
  if (runsTypeScript()) return;
  const [, script = "", ...args] = process.argv;
  process.exit(await runVisibly(pinnedNode(), [script, ...args], { env: projectEnvironment() }));
}

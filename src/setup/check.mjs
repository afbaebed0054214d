// npm run check: everything that can be said about the code without running it. All checks run, even when one fails.
import { ensureInstalled } from "./install.mjs";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, projectEnvironment, projectProgram } from "./project.mjs";
import { runToEnd } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

/** @typedef {{ name: string, program: string, args: readonly string[] }} Check */
/** @typedef {{ name: string, passed: boolean, seconds: number, output: string }} Result */

// The longest first, so that the last ones to end are short.
/** @type {readonly Check[]} */
const CHECKS = [
  { name: "lint", program: "eslint", args: ["-c", ".config/eslint.config.mjs", "--max-warnings=0", "."] },
  { name: "types", program: "tsc", args: ["--noEmit", "-p", "."] },
  { name: "types of pages", program: "tsc", args: ["--noEmit", "-p", "src/consoles/page"] },
  { name: "generated files", program: "node", args: ["src/setup/generate.mjs", "--check"] },
  {
    name: "import law",
    program: "depcruise",
    args: ["--config", ".config/dependency-cruiser.config.mjs", "src", "test"],
  },
  { name: "dead code", program: "knip", args: ["--config", ".config/knip.json"] },
  { name: "format", program: "biome", args: ["ci", "--config-path", ".config"] },
];

const PARALLEL = 2;

/**
 * @param {Check} check
 * @returns {Promise<Result>}
 */
async function runCheck({ name, program, args }) {
  const start = performance.now();
  const options = { cwd: PROJECT_DIR, env: projectEnvironment() };
  const outcome = await withProgress(logLine, `checking ${name}`, () =>
    runToEnd(projectProgram(program), args, options),
  );
  const output = `${outcome.stdout}${outcome.stderr}`.trim();
  return { name, passed: outcome.status === 0, seconds: (performance.now() - start) / 1000, output };
}

/** @returns {Promise<Result[]>} in the order of CHECKS */
async function runAll() {
  /** @type {Map<string, Result>} */
  const results = new Map();
  const queue = [...CHECKS];
  const lane = async () => {
    for (let check = queue.shift(); check !== undefined; check = queue.shift()) {
      results.set(check.name, await runCheck(check));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
  return CHECKS.flatMap(({ name }) => results.get(name) ?? []);
}

/** @param {readonly Result[]} results */
function report(results) {
  for (const { name, output } of results.filter(({ passed }) => !passed)) {
    process.stdout.write(`\n== ${name}\n${output}\n`);
  }
  process.stdout.write("\n");
  for (const { name, passed, seconds } of results) {
    process.stdout.write(
      `${passed ? "ok    " : "FAILED"}  ${name.padEnd(16)} ${seconds.toFixed(1).padStart(6)} s\n`,
    );
  }
}

await runScript(async () => {
  await ensureInstalled();
  const results = await runAll();
  report(results);
  return results.every(({ passed }) => passed) ? 0 : 1;
});

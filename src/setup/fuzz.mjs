// npm run fuzz -- [--seconds 600] [--seed 7]: the fuzz of the tests, for as long as is wanted. Needs no root.
import { parseArgs } from "node:util";
import { ensureInstalled } from "./install.mjs";
import { logLine } from "./progress.mjs";
import { PROJECT_DIR, projectEnvironment, projectProgram } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

const DEFAULT_SECONDS = "600";
const SEEDS = 2 ** 31;

await runScript(async () => {
  const { values } = parseArgs({ options: { seconds: { type: "string" }, seed: { type: "string" } } });
  const { seconds = DEFAULT_SECONDS, seed = String(Math.floor(Math.random() * SEEDS)) } = values;
  if (!/^[1-9]\d{0,5}$/.test(seconds)) throw new Error("--seconds must be a number of seconds, 1 or more");
  if (!/^\d{1,10}$/.test(seed)) throw new Error("--seed must be a number, 0 or more");
  await ensureInstalled();
  logLine(`fuzzing for ${seconds} seconds from seed ${seed}; the same seed sends the same requests`);
  const env = { ...projectEnvironment(), DROVER_FUZZ_SECONDS: seconds, DROVER_FUZZ_SEED: seed };
  const args = ["run", "--config", ".config/vitest.config.ts", "test/api/fuzz.test.ts"];
  return runVisibly(projectProgram("vitest"), args, { cwd: PROJECT_DIR, env });
});

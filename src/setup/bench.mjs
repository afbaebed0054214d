// npm run bench: prints the figures in docs/performance.md; `npm run bench -- <name>` runs one benchmark.
import { join } from "node:path";
import { ensureInstalled } from "./install.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

await runScript(async () => {
  await ensureInstalled();
  const args = [join(PROJECT_DIR, "test/bench/main.ts"), ...process.argv.slice(2)];
  return runVisibly(pinnedNode(), args, { cwd: PROJECT_DIR, env: projectEnvironment() });
});

// npm run test:mutants: puts one small mistake after the other into a copy of the checkout, and demands that a test
// notices; `npm run test:mutants -- <name>…` tries only these. Needs no root.
import { join } from "node:path";
import { ensureInstalled } from "./install.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

await runScript(async () => {
  await ensureInstalled();
  const args = [join(PROJECT_DIR, "test/mutants/main.ts"), ...process.argv.slice(2)];
  return runVisibly(pinnedNode(), args, { cwd: PROJECT_DIR, env: projectEnvironment() });
});

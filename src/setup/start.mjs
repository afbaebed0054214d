// npm start: serves, setting itself up as far as it needs.
import { join } from "node:path";
import { ensureInstalled } from "./install.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment, SERVICE_NODE_FLAGS } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

await runScript(async () => {
  await ensureInstalled();
  const args = [...SERVICE_NODE_FLAGS, join(PROJECT_DIR, "src/main.ts"), ...process.argv.slice(2)];
  return runVisibly(pinnedNode(), args, { env: projectEnvironment() });
});

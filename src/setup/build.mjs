// npm run build: JavaScript in dist/, for images and installations without the sources.
import { cpSync, rmSync } from "node:fs";
import { extname, join } from "node:path";
import { ensureInstalled } from "./install.mjs";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, projectEnvironment, projectProgram } from "./project.mjs";
import { run } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";

await runScript(async () => {
  await ensureInstalled();
  rmSync(join(PROJECT_DIR, "dist"), { recursive: true, force: true });
  const options = { cwd: PROJECT_DIR, env: projectEnvironment() };
  const compile = () => run(projectProgram("tsc"), ["-p", ".config/tsconfig.build.json"], options);
  await withProgress(logLine, "compiling to dist", compile);
  copyPages();
  return 0;
});

/** What browsers run is served as it is written. */
function copyPages() {
  const pages = "consoles/page";
  cpSync(join(PROJECT_DIR, "src", pages), join(PROJECT_DIR, "dist", pages), {
    recursive: true,
    filter: (path) => ["", ".mjs", ".css"].includes(extname(path)),
  });
}

// npm run build: JavaScript in dist/, for images and installations without the sources.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./install.mjs";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, projectEnvironment, projectProgram } from "./project.mjs";
import { ProgramError, run } from "./run-program.mjs";

await ensureInstalled();
rmSync(join(PROJECT_DIR, "dist"), { recursive: true, force: true });
try {
  await withProgress(logLine, "compiling to dist", () =>
    run(projectProgram("tsc"), ["-p", ".config/tsconfig.build.json"], {
      cwd: PROJECT_DIR,
      env: projectEnvironment(),
    }),
  );
} catch (error) {
  if (!(error instanceof ProgramError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

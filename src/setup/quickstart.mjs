// npm run quickstart: from a clean clone to a running VM behind a URL and a token, in one command.
import { ensureInstalled, requirePinnedNode } from "./install.mjs";
import { logLine } from "./progress.mjs";
import { readOptions, USAGE } from "./quickstart/options.mjs";

const options = readOptions(process.argv.slice(2), process.env);
if ("error" in options) {
  process.stderr.write(`${options.error}\n${USAGE}\n`);
  process.exitCode = 2;
} else {
  try {
    await ensureInstalled();
    await requirePinnedNode();
    // It imports the SDK, which is TypeScript: only the project's own Node can load it.
    const { quickstart } = await import("./quickstart/run.mjs");
    await quickstart(options);
  } catch (error) {
    logLine(`quickstart stopped: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}

// npm run quickstart: from a clean clone to a running VM behind a URL and a token, in one command.

import { ensureInstalled, requirePinnedNode } from "./install.mjs";
import { logLine } from "./progress.mjs";
import { createApi } from "./quickstart/api.mjs";
import { prepareHosts } from "./quickstart/hosts.mjs";
import { readOptions, USAGE } from "./quickstart/options.mjs";
import { startService } from "./quickstart/service-process.mjs";
import { showUsage } from "./quickstart/usage.mjs";
import { deleteVm, runVm } from "./quickstart/vm.mjs";

/**
 * @param {import("./quickstart/options.mjs").QuickstartOptions} options
 * @returns {Promise<void>}
 */
async function quickstart(options) {
  const interrupted = new AbortController();
  for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    process.on(signal, () => {
      interrupted.abort();
    });
  }
  const ground = await prepareHosts(options, logLine);
  try {
    const service = await startService(options, logLine);
    try {
      const api = createApi(service, interrupted.signal);
      const vm = await runVm(api, ground, logLine);
      if (options.exit) await deleteVm(api, vm, logLine);
      else {
        showUsage(service, ground, vm);
        await service.ended(interrupted.signal);
      }
    } finally {
      await service.stop();
    }
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
  } finally {
    await ground.stop();
  }
}

await ensureInstalled();
await requirePinnedNode();
const options = readOptions(process.argv.slice(2), process.env);
if ("error" in options) {
  process.stderr.write(`${options.error}\n${USAGE}\n`);
  process.exitCode = 2;
} else {
  try {
    await quickstart(options);
  } catch (error) {
    logLine(`quickstart stopped: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}

// Run as root by buildXenHost: builds one host into the cache directory given.
import { logLine } from "../progress.mjs";
import { runScript } from "../run-script.mjs";
import { buildXenHost } from "../xen-host.mjs";
import { xenVersionOf } from "./flavours.mjs";

const [version, cacheDir] = process.argv.slice(2);
await runScript(async () => {
  if (cacheDir === undefined) throw new Error("usage: command.mjs VERSION CACHE-DIRECTORY");
  await buildXenHost({ version: xenVersionOf(version), cacheDir, log: logLine });
  return 0;
});

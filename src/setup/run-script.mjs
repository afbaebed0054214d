import { logLine } from "./progress.mjs";

/**
 * Runs what an npm script does and ends the process with its status; an error ends it with status 1 and its message.
 * @param {() => Promise<number>} script
 */
export async function runScript(script) {
  try {
    process.exitCode = await script();
  } catch (error) {
    let at = error;
    for (; at instanceof Error; at = at.cause) logLine(at.message);
    if (at !== undefined) logLine(JSON.stringify(at));
    process.exitCode = 1;
  }
}

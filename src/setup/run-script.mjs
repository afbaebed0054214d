import { logLine } from "./progress.mjs";

/**
 * Runs what an npm script does and ends the process with its status; an error ends it with status 1 and its message.
 * @param {() => Promise<number>} script
 */
export async function runScript(script) {
  try {
    process.exitCode = await script();
  } catch (error) {
    for (let at = error; at !== undefined; at = at instanceof Error ? at.cause : undefined) {
      logLine(at instanceof Error ? at.message : String(at));
    }
    process.exitCode = 1;
  }
}

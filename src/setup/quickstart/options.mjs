// What quickstart was asked for, by its arguments and the environment that the service reads too.
import { homedir } from "node:os";
import { join, resolve } from "node:path";

export const USAGE = "usage: npm run quickstart [-- [--exit] [--accelerator auto|kvm|tcg]]";

/** @typedef {"auto" | "kvm" | "tcg"} Accelerator */

/**
 * @typedef {object} QuickstartOptions
 * @property {boolean} exit whether it deletes its VM again and ends
 * @property {Accelerator} accelerator
 * @property {string} dataDir
 * @property {string} listen `address:port`
 */

/**
 * @param {readonly string[]} args
 * @param {NodeJS.ProcessEnv} environment
 * @returns {QuickstartOptions | { error: string }}
 */
export function readOptions(args, environment) {
  let exit = false;
  /** @type {string} */
  let accelerator = environment["CI"] === "true" ? "tcg" : "auto";
  const queue = args.flatMap((arg) => (arg.startsWith("--accelerator=") ? arg.split("=", 2) : [arg]));
  for (let arg = queue.shift(); arg !== undefined; arg = queue.shift()) {
    if (arg === "--exit") exit = true;
    else if (arg === "--accelerator") accelerator = queue.shift() ?? "";
    else return { error: `unknown argument ${arg}` };
  }
  if (accelerator !== "auto" && accelerator !== "kvm" && accelerator !== "tcg") {
    return { error: `unknown accelerator "${accelerator}"` };
  }
  const dataDir = resolve(environment["DROVER_DATA_DIR"] || defaultDataDir(environment));
  return { exit, accelerator, dataDir, listen: environment["DROVER_LISTEN"] || "127.0.0.1:7420" };
}

/**
 * The service's own default: see src/config.ts.
 * @param {NodeJS.ProcessEnv} environment
 */
function defaultDataDir(environment) {
  if (process.getuid?.() === 0) return "/var/lib/drover";
  return join(environment["XDG_DATA_HOME"] || join(homedir(), ".local", "share"), "drover");
}

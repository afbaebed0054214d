import { homedir } from "node:os";
import { join } from "node:path";

/**
 * Where built guest images and the like are kept from run to run; may be deleted at any time.
 * @returns {string} $XDG_CACHE_HOME/drover, else ~/.cache/drover
 */
export function cacheDir() {
  const base = process.env["XDG_CACHE_HOME"];
  return join(base !== undefined && base !== "" ? base : join(homedir(), ".cache"), "drover");
}

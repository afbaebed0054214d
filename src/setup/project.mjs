// Where the project is, and the Node and the programs it brings along.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the checkout. */
export const PROJECT_DIR = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** The first version of Node that runs TypeScript as we write it. */
const NODE_MAJOR = 24;

/**
 * @returns {string} the Node that the lockfile pins; the running one where npm has none for this machine and it is new
 *   enough
 * @throws {Error} when there is neither
 */
export function pinnedNode() {
  const pinned = join(PROJECT_DIR, "node_modules", `node-${process.platform}-${process.arch}`, "bin/node");
  if (existsSync(pinned)) return pinned;
  if (nodeMajor() >= NODE_MAJOR) return process.execPath;
  throw new Error(
    `npm has no Node ${NODE_MAJOR} for ${process.platform} on ${process.arch}: install Node ${NODE_MAJOR}`,
  );
}

/**
 * What Node is told for the service: a young generation of 16 MiB instead of 64, which costs a collection now and then
 * and keeps a hundred MiB from lying idle. The Dockerfile says the same.
 */
export const SERVICE_NODE_FLAGS = Object.freeze(["--max-semi-space-size=16"]);

/** @returns {boolean} whether the running Node can run the project's TypeScript */
export function runsTypeScript() {
  return nodeMajor() >= NODE_MAJOR;
}

function nodeMajor() {
  return Number(process.versions.node.split(".")[0]);
}

/**
 * @param {string} name
 * @returns {string} path of a program that npm installed
 */
export function projectProgram(name) {
  return join(PROJECT_DIR, "node_modules/.bin", name);
}

/** @returns {NodeJS.ProcessEnv} the environment with the project's Node and programs found first */
export function projectEnvironment() {
  const path = [join(PROJECT_DIR, "node_modules/.bin"), process.env["PATH"]].filter(Boolean).join(delimiter);
  return { ...process.env, PATH: path };
}

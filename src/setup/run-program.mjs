// Runs programs for the setup scripts. Node's own child_process only: these scripts run before `npm ci` has.
import { spawn } from "node:child_process";
import { constants } from "node:os";

/** A program that ended with another status than 0, with what it wrote. */
export class ProgramError extends Error {
  /**
   * @param {string} program
   * @param {readonly string[]} args
   * @param {{ status: number | null, signal: string | null, stdout: string, stderr: string }} outcome
   */
  constructor(program, args, outcome) {
    const ending = outcome.signal === null ? `status ${outcome.status}` : `signal ${outcome.signal}`;
    const output = (outcome.stderr.trim() || outcome.stdout.trim()).slice(-4000);
    super(`${[program, ...args].join(" ")} ended with ${ending}${output === "" ? "" : `:\n${output}`}`);
    this.name = "ProgramError";
    this.status = outcome.status;
    this.stdout = outcome.stdout;
    this.stderr = outcome.stderr;
  }
}

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd]
 * @property {NodeJS.ProcessEnv} [env] the whole environment, not an addition to it
 * @property {string} [input] written to standard input, which is empty otherwise
 */

/**
 * Runs a program to its end and returns its standard output.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<string>}
 * @throws {ProgramError} when it does not end with status 0; Node's own error when it cannot be started
 */
export async function run(program, args, options = {}) {
  const outcome = await runToEnd(program, args, options);
  if (outcome.status !== 0) throw new ProgramError(program, args, outcome);
  return outcome.stdout;
}

/**
 * Runs a program to its end, whatever its status.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<{ status: number | null, signal: string | null, stdout: string, stderr: string }>}
 */
export function runToEnd(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const { input, ...spawnOptions } = options;
    const child = spawn(program, [...args], { ...spawnOptions, stdio: ["pipe", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (/** @type {string} */ text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (/** @type {string} */ text) => (stderr += text));
    child.on("error", reject);
    // A program may end without reading its input: that shows in its status, not as a broken pipe.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input ?? "");
    // "exit", not "close": a daemon left behind by the program may hold the pipes open for ever.
    child.on("exit", (status, signal) => {
      setImmediate(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        resolve({ status, signal, stdout, stderr });
      });
    });
  });
}

const FORWARDED = /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]);

/**
 * Runs a program in our place: on our terminal, with the signals we get.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<number>} its status; 128 and the signal's number where a signal ended it, as shells have it
 */
export function runVisibly(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args], { ...options, stdio: "inherit" });
    const forwarders = FORWARDED.map((signal) => {
      // The terminal sends ctrl-C to us both; then the child needs no second one, which it may take for "at once".
      const forward = () => {
        if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
      };
      process.on(signal, forward);
      return () => process.off(signal, forward);
    });
    const settle = () => {
      for (const remove of forwarders) remove();
    };
    child.on("error", (error) => {
      settle();
      reject(error);
    });
    child.on("exit", (status, signal) => {
      settle();
      resolve(status ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}

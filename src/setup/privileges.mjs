// Running programs as root: directly where we are root, with sudo where it asks for no password.
import { run, runToEnd } from "./run-program.mjs";

/** @typedef {"root" | "sudo" | "none"} RootAccess */

/** @returns {Promise<RootAccess>} how programs can be run as root without asking anybody */
export async function rootAccess() {
  if (process.getuid?.() === 0) return "root";
  const outcome = await runToEnd("sudo", ["-n", "true"]).catch(() => undefined); // no sudo on this machine
  return outcome?.status === 0 ? "sudo" : "none";
}

/**
 * Runs a program as root and returns its standard output.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ env?: Readonly<Record<string, string>>, input?: string }} [options] env: added to the environment
 * @throws {Error} when neither root nor sudo can be had
 */
export async function runAsRoot(program, args, { env = {}, input } = {}) {
  const access = await rootAccess();
  const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const command = ["env", ...assignments, program, ...args];
  const given = input === undefined ? {} : { input };
  switch (access) {
    case "root":
      return run("env", command.slice(1), given);
    case "sudo":
      return run("sudo", ["-n", ...command], given);
    case "none":
      throw new Error(`${program} must run as root: run this as root or allow sudo without a password`);
  }
}

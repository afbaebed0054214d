// Commands in dom0, over a connection of their own each: for building, and for looking behind Drover's back.
import { runToEnd } from "../run-program.mjs";

/**
 * @typedef {object} Dom0Access
 * @property {number} port on 127.0.0.1
 * @property {string} privateKeyFile
 * @property {string} knownHostsFile its entry has the name `xen-rig`, whatever the port
 */

/** The name under which dom0's host key is known. */
export const HOST_KEY_ALIAS = "xen-rig";

/**
 * @param {Dom0Access} access
 * @param {{ connectSeconds?: number }} [options]
 * @returns {string[]} options of ssh and where it goes
 */
export function dom0SshOptions({ port, privateKeyFile, knownHostsFile }, { connectSeconds = 120 } = {}) {
  return [
    ...["-F", "none", "-T", "-p", String(port), "-i", privateKeyFile],
    ...["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"],
    ...["-o", `UserKnownHostsFile=${knownHostsFile}`, "-o", "GlobalKnownHostsFile=/dev/null"],
    ...["-o", `HostKeyAlias=${HOST_KEY_ALIAS}`, "-o", `ConnectTimeout=${connectSeconds}`],
    ...["-o", "LogLevel=ERROR", "root@127.0.0.1"],
  ];
}

/**
 * @param {Dom0Access} access
 * @param {readonly string[]} argv
 * @param {{ connectSeconds?: number }} [options]
 * @returns {string[]} arguments with which ssh runs a program
 */
export function dom0SshArgs(access, argv, options) {
  // The shell of the far side takes the command apart again.
  const command = argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  return [...dom0SshOptions(access, options), command];
}

/**
 * Runs a program in dom0, whatever its status: 255 is ssh's own, for a connection that fails.
 * @param {Dom0Access} access
 * @param {readonly string[]} argv
 * @param {{ connectSeconds?: number }} [options]
 */
export function runInDom0(access, argv, options) {
  return runToEnd("ssh", dom0SshArgs(access, argv, options));
}

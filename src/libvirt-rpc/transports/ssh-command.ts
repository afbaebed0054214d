/** What is asked of OpenSSH, and what its messages mean. Pure. */
import { ConnectionError, type HostKey, HostKeyUnknownError } from "../errors.ts";
import type { SshTransport } from "../options.ts";

/** What a sockaddr_un takes. */
const SOCKET_PATH_MAX = 107;
const PLAIN_PATH = /^\/[A-Za-z0-9_./-]+$/;
const PLAIN_NAME = /^[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*$/;
const PLAIN_USER = /^[A-Za-z0-9_.][A-Za-z0-9_.@+-]*$/;
const PLAIN_URI = /^[a-z0-9]+:\/\/\/[A-Za-z0-9_./-]*$/;

function requirePlain(value: string, pattern: RegExp, what: string): string {
  if (!pattern.test(value)) throw new ConnectionError("refused", `"${value}" is no ${what} we pass to ssh`);
  return value;
}

/**
 * What the far side runs. Its login shell reads this, whichever that is, so it goes through sh and
 * holds nothing that would need quoting: paths and URIs with other characters are refused.
 */
export function remoteCommand(uri: string, socketPath: string | undefined): string {
  if (socketPath === undefined) {
    return `virt-ssh-helper '${requirePlain(uri, PLAIN_URI, "libvirt URI")}'`;
  }
  const path = requirePlain(socketPath, PLAIN_PATH, "socket path");
  if (path.length > SOCKET_PATH_MAX) {
    throw new ConnectionError("refused", `a socket path has at most ${SOCKET_PATH_MAX} characters: ${path}`);
  }
  const socat = `exec socat - UNIX-CONNECT:${path}`;
  const nc = `exec nc -U ${path}`;
  return `sh -c 'if command -v socat >/dev/null 2>&1; then ${socat}; else ${nc}; fi'`;
}

/** ssh expands % in paths, and takes a quoted one with spaces whole. */
function quotedFile(path: string): string {
  return `"${path.replaceAll("%", "%%")}"`;
}

/** Files written for one ssh process. */
export interface SshFiles {
  readonly knownHosts: string;
  readonly identity: string | null;
}

/** What is asked of the far side: a command, or a way to a port of its own loopback. */
export type SshPurpose = { readonly command: string } | { readonly loopbackPort: number };

/** The arguments of ssh for one purpose by itself. */
export function sshArguments(transport: SshTransport, files: SshFiles, purpose: SshPurpose): string[] {
  const alone = ["ControlMaster=no", "ControlPath=none"];
  if ("command" in purpose) return [...sshDestination(transport, files, alone), purpose.command];
  return ["-W", `127.0.0.1:${purpose.loopbackPort}`, ...sshDestination(transport, files, alone)];
}

/**
 * The arguments of ssh up to the host's name: no configuration but this, no question, no host key but the given ones.
 * @param further options of the caller, as `-o` takes them
 */
export function sshDestination(
  transport: SshTransport,
  files: SshFiles,
  further: readonly string[],
): string[] {
  const options = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    `UserKnownHostsFile=${quotedFile(files.knownHosts)}`,
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "IdentitiesOnly=yes",
    ...(files.identity === null ? [] : [`IdentityFile=${quotedFile(files.identity)}`, "IdentityAgent=none"]),
    "ClearAllForwardings=yes",
    ...further,
  ];
  const user =
    transport.user === undefined ? [] : ["-l", requirePlain(transport.user, PLAIN_USER, "user name")];
  const port = transport.port === undefined ? [] : ["-p", String(transport.port)];
  const host = requirePlain(transport.host, PLAIN_NAME, "host name");
  // -v is how ssh tells the key it was shown; explainSsh takes the rest of it out again.
  return [
    "-F",
    "none",
    "-v",
    "-T",
    ...options.flatMap((option) => ["-o", option]),
    ...user,
    ...port,
    "--",
    host,
  ];
}

const SERVER_HOST_KEY = /^debug1: Server host key: (\S+) (\S+)$/m;
const CHATTER = /^(debug\d: |OpenSSH_|Authenticated to |Transferred: |Bytes per second: |$)/;

/** The host key in what ssh -v wrote. */
export function offeredHostKey(stderr: string): HostKey | null {
  const [, algorithm, fingerprint] = SERVER_HOST_KEY.exec(stderr) ?? [];
  return algorithm === undefined || fingerprint === undefined ? null : { algorithm, fingerprint };
}

/** ssh ends what it says with both; a command that it tells of has line breaks of its own. */
const DEBUG_RECORD = /^debug\d: [^\r]*\r\n/gm;

/** Text of ssh -v without what it says for debugging. A record that has not ended yet stays. */
export function withoutDebugRecords(stderr: string): string {
  return stderr.replace(DEBUG_RECORD, "");
}

/** What ssh and the far side wrote, without what only -v adds. */
export function withoutChatter(stderr: string): string {
  return withoutDebugRecords(stderr)
    .split(/\r?\n/)
    .filter((line) => !CHATTER.test(line))
    .join("\n");
}

/** Why an ssh process ended, from what it wrote to stderr under -v. `how` is its exit code or signal. */
export function explainSsh(host: string, how: string, stderr: string): ConnectionError {
  const said = withoutChatter(stderr);
  const because = said === "" ? "" : `: ${said}`;
  if (said.includes("Host key verification failed") || said.includes("host key is known for")) {
    return unknownHostKey(host, stderr, said);
  }
  if (said.includes("Permission denied") || said.includes("Too many authentication failures")) {
    return new ConnectionError("auth", `ssh to ${host} was not let in${because}`);
  }
  if (said.includes("stdio forwarding failed")) {
    return new ConnectionError("refused", `ssh on ${host} does not let us through to the port${because}`);
  }
  if (/timed out/i.test(said))
    return new ConnectionError("timeout", `ssh to ${host} was not answered${because}`);
  if (/Connection refused|Could not resolve|No route to host|Network is unreachable/.test(said)) {
    return new ConnectionError("refused", `ssh does not reach ${host}${because}`);
  }
  return new ConnectionError("closed", `ssh to ${host} ended (${how})${because}`);
}

function unknownHostKey(host: string, stderr: string, said: string): HostKeyUnknownError {
  const offered = offeredHostKey(stderr);
  const changed = said.includes("IDENTIFICATION HAS CHANGED");
  const shown = offered === null ? "" : ` It shows ${offered.algorithm} ${offered.fingerprint}.`;
  const message = changed
    ? `the ssh host key of ${host} is not the known one.${shown} Make sure that the host was reinstalled, then replace its line in the known hosts.`
    : `the ssh host key of ${host} is not known.${shown} Compare it on the host, then add its line to the known hosts.`;
  return new HostKeyUnknownError(message, offered, changed, { cause: new Error(said) });
}

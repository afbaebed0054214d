/** What any user of OpenSSH needs: how it is started, and what its messages mean. */
export { ConnectionError, HostKeyUnknownError } from "./errors.ts";
export type { SshTransport } from "./options.ts";
export { explainSsh, sshDestination, withoutDebugRecords } from "./transports/ssh-command.ts";
export { writeSshFiles } from "./transports/ssh-files.ts";

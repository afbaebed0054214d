import { writeFile } from "node:fs/promises";
import path from "node:path";
import type { SshTransport } from "../options.ts";
import type { SshFiles } from "./ssh-command.ts";

/** Keeps the key and known hosts in a directory, which only we may enter. */
export async function writeSshFiles(directory: string, transport: SshTransport): Promise<SshFiles> {
  const knownHosts = path.join(directory, "known_hosts");
  await writeFile(knownHosts, endingInNewline(transport.knownHosts ?? ""), { mode: 0o600 });
  if (transport.privateKey === undefined) return { knownHosts, identity: null };
  const identity = path.join(directory, "identity");
  // OpenSSH refuses a key whose last line is not ended.
  await writeFile(identity, endingInNewline(transport.privateKey), { mode: 0o600 });
  return { knownHosts, identity };
}

function endingInNewline(text: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}

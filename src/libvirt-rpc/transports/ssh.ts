import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Duplex } from "node:stream";
import type { SshTransport } from "../options.ts";
import { ChildStream } from "./child-stream.ts";
import { explainSsh, remoteCommand, type SshPurpose, sshArguments } from "./ssh-command.ts";
import { writeSshFiles } from "./ssh-files.ts";

/** Starts ssh with the daemon's own protocol on the other end; `uri` is what will be opened. As startSsh. */
export function dialSsh(transport: SshTransport, uri: string): Promise<Duplex> {
  return startSsh(transport, { command: remoteCommand(uri, transport.socketPath) });
}

/**
 * Starts ssh. The stream it returns fails with what stood in the way; that is known only when ssh has
 * ended, so this resolves before anybody has answered.
 */
export async function startSsh(transport: SshTransport, purpose: SshPurpose): Promise<Duplex> {
  const directory = await mkdtemp(path.join(tmpdir(), "libvirt-ssh-"));
  // At once and not in the background, so that no key is left behind by a process that ends here.
  const cleanUp = (): void => {
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const files = await writeSshFiles(directory, transport);
    const child = spawn("ssh", sshArguments(transport, files, purpose), { stdio: "pipe" });
    return new ChildStream(child, {
      explain: (how, stderr) => explainSsh(transport.host, how, stderr),
      // The first byte comes from behind the login, where ssh has no more use for the files.
      onFirstByteOrEnd: cleanUp,
    });
  } catch (error) {
    cleanUp();
    throw error;
  }
}

import type { Duplex } from "node:stream";
import type { Transport } from "../options.ts";
import { dialSocket } from "./socket.ts";
import { dialSsh } from "./ssh.ts";
import { dialTls } from "./tls.ts";

/**
 * Reaches a daemon, as far as the first byte of its protocol.
 * @param uri what will be opened: virt-ssh-helper chooses the daemon by it
 */
export function dial(transport: Transport, uri: string, signal: AbortSignal): Promise<Duplex> {
  switch (transport.kind) {
    case "unix":
      return dialSocket({ path: transport.path }, signal);
    case "tcp":
      return dialSocket({ host: transport.host, port: transport.port }, signal);
    case "tls":
      return dialTls(transport, signal);
    case "ssh":
      return dialSsh(transport, uri);
  }
}

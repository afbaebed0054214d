import type { Duplex } from "node:stream";
import type { SshTransport, Transport } from "../options.ts";
import { dialSocket } from "./socket.ts";
import { startSsh } from "./ssh.ts";

/** The transports by which we are on the host itself, so that its loopback is in reach. */
export type HostTransport = SshTransport | Extract<Transport, { kind: "unix" }>;

/**
 * Reaches a TCP port on the loopback of the host. Over ssh the stream fails later, with what stood in the way: wait for
 * its first byte. Otherwise rejects with ConnectionError, or the signal's reason.
 */
export async function dialLoopback(
  transport: HostTransport,
  port: number,
  signal: AbortSignal,
): Promise<Duplex> {
  if (transport.kind === "ssh") return await startSsh(transport, { loopbackPort: port });
  return await dialSocket({ host: "127.0.0.1", port }, signal);
}

import net from "node:net";
import tls from "node:tls";
import { ConnectionError } from "../errors.ts";
import type { Transport } from "../options.ts";
import { ready, refused } from "./socket.ts";

/** The byte the daemon sends when it has accepted our certificate; nothing comes when it has not. */
const ACCEPTED = 1;

/** Opens TLS with a client certificate. The server's certificate must be from our CA and for this host. */
export async function dialTls(
  transport: Extract<Transport, { kind: "tls" }>,
  signal: AbortSignal,
): Promise<tls.TLSSocket> {
  const { host, port, ca, cert, key } = transport;
  const where = `${host}:${port}`;
  const describe = (error: Error): ConnectionError =>
    "syscall" in error
      ? refused(where, error)
      : new ConnectionError("tls", `TLS with ${where} failed: ${error.message}`, { cause: error });
  const socket = connect({ host, port, ca, cert, key, minVersion: "TLSv1.2" }, describe);
  await ready(socket, "secureConnect", signal, describe);
  socket.setNoDelay(true);
  await ready(socket, "readable", signal, (error) => rejected(where, error));
  const first: unknown = socket.read(1);
  if (!Buffer.isBuffer(first) || first[0] !== ACCEPTED) {
    socket.destroy();
    throw rejected(where);
  }
  return writingEachAlone(socket);
}

/**
 * Makes every write a TLS record of its own. Node joins writes that wait into one record; libvirtd takes one message
 * out of a record and looks at what follows in it only when more bytes arrive, which may be the next keepalive.
 */
function writingEachAlone(socket: tls.TLSSocket): tls.TLSSocket {
  // A stream without this optional method gets its chunks one after the other, each when the last is out.
  return Object.defineProperty(socket, "_writev", { value: undefined });
}

function connect(
  options: tls.ConnectionOptions & { readonly host: string },
  describe: (error: Error) => ConnectionError,
): tls.TLSSocket {
  // A name goes into the handshake; for an address that is not allowed, and the certificate's
  // addresses are checked instead.
  const named = net.isIP(options.host) === 0 ? { ...options, servername: options.host } : options;
  try {
    return tls.connect(named);
  } catch (error) {
    // Certificates and keys that cannot be read are refused before anything is sent.
    throw describe(error instanceof Error ? error : new Error(String(error)));
  }
}

function rejected(where: string, cause?: Error): ConnectionError {
  const message = `the daemon at ${where} did not accept our client certificate`;
  return new ConnectionError("tls", message, { cause });
}

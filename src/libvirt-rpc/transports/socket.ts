import net from "node:net";
import { toError } from "../calls.ts";
import { ConnectionError } from "../errors.ts";

type Address = { readonly path: string } | { readonly host: string; readonly port: number };

/** Opens a unix or TCP socket. */
export async function dialSocket(address: Address, signal: AbortSignal): Promise<net.Socket> {
  const where = "path" in address ? address.path : `${address.host}:${address.port}`;
  const socket = net.connect(address);
  await ready(socket, "connect", signal, (error) => refused(where, error));
  socket.setNoDelay(true);
  return socket;
}

/** Waits for a socket's `event`; on an error or abort destroys it and rejects. */
export function ready(
  socket: net.Socket,
  event: string,
  signal: AbortSignal,
  describe: (error: Error) => ConnectionError,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const fail = (error: Error): void => {
    socket.destroy();
    reject(error);
  };
  const onReady = (): void => {
    resolve(undefined);
  };
  const onError = (error: Error): void => {
    fail(describe(error));
  };
  const onClose = (): void => {
    fail(describe(new Error("the connection was closed")));
  };
  const onAbort = (): void => {
    fail(toError(signal.reason));
  };
  socket.once(event, onReady).once("error", onError).once("close", onClose);
  signal.addEventListener("abort", onAbort, { once: true });
  return promise.finally(() => {
    signal.removeEventListener("abort", onAbort);
    socket.off(event, onReady).off("close", onClose);
    // An error may still come while a refused socket is being taken down: it has been reported.
    if (!socket.destroyed) socket.off("error", onError);
  });
}

function codeOf(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : "";
}

/** Names what the operating system said. */
export function refused(where: string, error: Error): ConnectionError {
  const code = codeOf(error);
  if (code === "EACCES" || code === "EPERM") {
    return new ConnectionError("auth", `we may not open ${where}: ${error.message}`, { cause: error });
  }
  if (code === "ETIMEDOUT") {
    return new ConnectionError("timeout", `${where} did not answer: ${error.message}`, { cause: error });
  }
  return new ConnectionError("refused", `no daemon answers at ${where}: ${error.message}`, { cause: error });
}

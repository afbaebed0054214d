import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** Passes TCP connections on to another port, and can break them all. */
export interface Relay {
  /** On 127.0.0.1, chosen by the kernel. */
  readonly port: number;
  /** Breaks every connection at once, as a network does that fails; new ones are let in. */
  cut(): void;
  close(): Promise<void>;
}

/** Starts a relay to a port on 127.0.0.1. */
export async function startRelay(targetPort: number): Promise<Relay> {
  const open = new Set<Socket>();
  const keep = (socket: Socket, other: Socket): void => {
    open.add(socket);
    // One end broken, the other is too: an error says no more than the close that follows it.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      open.delete(socket);
      other.destroy();
    });
  };
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const target = connect({ host: "127.0.0.1", port: targetPort, allowHalfOpen: true });
    keep(client, target);
    keep(target, client);
    client.pipe(target);
    target.pipe(client);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => {
    for (const socket of open) socket.resetAndDestroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    close: async () => {
      const closed = once(server, "close");
      server.close();
      cut();
      await closed;
    },
  };
}

import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";

/**
 * What is under way on each connection. Bytes that are no request may follow a request that is (its Content-Length
 * was too small); a refusal of them must not overtake the answer, or it is taken for the answer to what is being done.
 */
interface Connection {
  readonly requests: Set<IncomingMessage>;
  isBroken: boolean;
}

const connections = new WeakMap<Duplex, Connection>();

/** Follows every request of this server until it is answered. */
export function followAnswers(server: Server): void {
  server.on("request", (request, response) => {
    const { socket } = request;
    const connection = connections.get(socket) ?? { requests: new Set(), isBroken: false };
    connections.set(socket, connection);
    connection.requests.add(request);
    response.once("close", () => {
      connection.requests.delete(request);
      if (connection.isBroken && !isAnswering(connection)) socket.end();
    });
  });
}

/**
 * True when a request that came whole is still being answered on the connection, which then ends after that answer.
 * One whose body is what broke is not waited for.
 */
export function endsAfterAnswer(socket: Duplex): boolean {
  const connection = connections.get(socket);
  if (connection === undefined || !isAnswering(connection)) return false;
  connection.isBroken = true;
  return true;
}

function isAnswering({ requests }: Connection): boolean {
  return [...requests].some(({ complete }) => complete);
}

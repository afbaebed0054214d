import { type IncomingMessage, type RequestListener, type Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type WebSocket, WebSocketServer } from "ws";
import { DroverError } from "../lib/errors.ts";

/**
 * WebSockets as routes: the request that asks for one goes through the same routing, hooks and refusals as every other,
 * and is answered with a problem until its handler lets the connection change over.
 */

/** What becomes of a connection once it is a WebSocket. */
export type SocketSession = (socket: WebSocket) => void;

/** A client that sends more at once is closed with 1009. */
const MAX_MESSAGE_BYTES = 1_048_576;
const GOING_AWAY = 1001;
/** How long clients have to answer our close before they are cut off. */
const CLOSE_GRACE_MS = 2_000;

interface Upgrade {
  readonly socket: Duplex;
  readonly head: Buffer;
}

const upgrades = new WeakMap<IncomingMessage, Upgrade>();

/**
 * True for the requests that Node is to hand over as bare connections. Others that name an upgrade, such as curl's to
 * HTTP/2, are ordinary requests that may stay what they are.
 */
export function asksForWebSocket(request: IncomingMessage): boolean {
  return request.method === "GET" && request.headers.upgrade?.toLowerCase() === "websocket";
}

/** Sends requests for WebSockets through the server's own handler, with an answer that ends the connection. */
export function followUpgrades(server: Server, handler: RequestListener): void {
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // A client that has gone by now needs no answer.
    socket.on("error", () => socket.destroy());
    upgrades.set(request, { socket, head });
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(request.socket);
    response.once("finish", () => {
      response.detachSocket(request.socket);
      socket.end();
    });
    handler(request, response);
  });
}

/** The WebSockets of one server; on its end all are closed with 1001. */
export interface WebSockets {
  /** Throws DroverError `upgrade_required` for a request that does not ask for a WebSocket. */
  require(request: FastifyRequest): void;
  /** Changes the connection over; the reply is taken out of Fastify's hands. */
  accept(request: FastifyRequest, reply: FastifyReply, session: SocketSession): void;
}

export function createWebSockets(app: FastifyInstance): WebSockets {
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  });
  app.addHook("preClose", () => closeAll(server));
  return {
    require(request) {
      if (upgrades.has(request.raw)) return;
      const message = "This path is a WebSocket: connect to it with ws:// or wss://.";
      throw new DroverError("upgrade_required", message);
    },
    accept(request, reply, session) {
      const upgrade = upgrades.get(request.raw);
      if (upgrade === undefined) throw new Error("a session without an upgrade");
      reply.hijack();
      reply.raw.detachSocket(request.raw.socket);
      server.handleUpgrade(request.raw, upgrade.socket, upgrade.head, (socket) => {
        // A client that breaks the protocol or sends too much is closed by the library; its end tells the session.
        socket.on("error", () => undefined);
        session(socket);
      });
    },
  };
}

async function closeAll(server: WebSocketServer): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => {
    for (const client of server.clients) client.terminate();
    resolve(undefined);
  }, CLOSE_GRACE_MS);
  const check = (): void => {
    if (server.clients.size === 0) resolve(undefined);
  };
  for (const client of server.clients) {
    client.once("close", () => setImmediate(check));
    client.close(GOING_AWAY, "The service is stopping. Open the console anew.");
  }
  check();
  await over;
  clearTimeout(timer);
}

import { createServer as createHttpServer, type IncomingMessage } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { Socket } from "node:net";
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyRequest,
  LogController,
} from "fastify";
import { serializerCompiler } from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { z } from "zod";
import { DroverError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { answerClientError, answerConnect, installNotFound, sendProblem } from "./error-handler.ts";
import { type BodyLimits, JSON_BODY_LIMITS, readJsonBody } from "./json-body.ts";
import { maskTickets } from "./masked-url.ts";
import { endsAfterAnswer, followAnswers } from "./open-answers.ts";
import { invalidRequest, type RequestPart, violationsOf } from "./violations.ts";
import { asksForWebSocket, followUpgrades } from "./web-sockets.ts";

export interface ServerOptions {
  readonly logger: Logger;
  /** PEM texts; without, plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly bodyLimits?: BodyLimits | undefined;
}

// Time for the headers, and for a whole request: a large upload over a slow line takes hours. JSON bodies have
// their own, much shorter limit.
const HEADERS_TIMEOUT_MS = 15_000;
const REQUEST_TIMEOUT_MS = 12 * 3_600_000;
// Longer than the idle time of common load balancers (60 s), so that they and not we close first.
const KEEP_ALIVE_TIMEOUT_MS = 72_000;

const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;

/** A Fastify that speaks our conventions and has no routes yet. */
export function createServer(options: ServerOptions): FastifyInstance {
  const log: FastifyBaseLogger = options.logger;
  const app = fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "requestId" }),
    // Requests that come while we drain are still answered; the listening socket is what closes.
    return503OnClosing: false,
    forceCloseConnections: "idle",
    requestIdHeader: false,
    genReqId: ({ headers }) => {
      const given = headers["x-request-id"];
      return typeof given === "string" && REQUEST_ID.test(given) ? given : newId();
    },
    routerOptions: { maxParamLength: 256 },
    frameworkErrors: (error, request, reply) => {
      sendProblem(error, request, reply);
    },
    clientErrorHandler: (error, socket) => {
      if (!endsAfterAnswer(socket)) answerClientError(error, socket, log);
    },
    serverFactory: (handler) => {
      const limits = {
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
        shouldUpgradeCallback: asksForWebSocket,
      };
      const server =
        options.tls === undefined
          ? createHttpServer(limits, handler)
          : createHttpsServer({ ...limits, ...options.tls, minVersion: "TLSv1.2" }, handler);
      followAnswers(server);
      followUpgrades(server, handler);
      // Left to itself Node answers an Expect that it does not know, and a CONNECT, without a problem.
      server.on("checkExpectation", handler);
      server.on("connect", (_request, socket) => {
        answerConnect(socket, log);
      });
      return server;
    },
  });
  app.setErrorHandler(sendProblem);
  installNotFound(app);
  installCompilers(app);
  installBodies(app, options.bodyLimits ?? JSON_BODY_LIMITS);
  installHeaders(app);
  installDrain(app, silentConnections(app.server, options.tls === undefined));
  installRequestLog(app);
  return app;
}

/** zod checks requests and answers; what it finds wrong with a request becomes our error at once. */
function installCompilers(app: FastifyInstance): void {
  app.setValidatorCompiler<z.ZodType>(({ schema, httpPart }) => (data: unknown) => {
    const result = schema.safeParse(data);
    if (result.success) return { value: result.data };
    if (httpPart === "params")
      return { error: new DroverError("not_found", "There is nothing of that id or name.") };
    return { error: invalidRequest(violationsOf(result.error, (httpPart ?? "body") as RequestPart)) };
  });
  app.setSerializerCompiler(serializerCompiler);
}

function installBodies(app: FastifyInstance, limits: BodyLimits): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    ["application/json", "application/merge-patch+json"],
    (request: FastifyRequest, payload: IncomingMessage) => {
      const declared = request.headers["content-length"];
      return readJsonBody(payload, declared === undefined ? null : Number(declared), limits);
    },
  );
}

function installHeaders(app: FastifyInstance): void {
  app.addHook("onRequest", (request, reply, done) => {
    reply.headers({
      "x-request-id": request.id,
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    });
    done();
  });
}

/** The connections that stand and have sent nothing yet, such as those that browsers open ahead. */
function silentConnections(server: FastifyInstance["server"], isPlain: boolean): () => Socket[] {
  const sockets = new Set<Socket>();
  server.on(isPlain ? "connection" : "secureConnection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  return () => [...sockets].filter(({ bytesRead }) => bytesRead === 0);
}

/**
 * While we drain, a client must take its next request elsewhere: else its idle connection would hold us up. Node calls
 * a connection idle only after its first request, so those that never had one are ended here.
 */
function installDrain(app: FastifyInstance, silent: () => readonly Socket[]): void {
  let closing = false;
  app.addHook("preClose", (done) => {
    closing = true;
    for (const socket of silent()) socket.destroy();
    done();
  });
  app.addHook("onSend", (_request, reply, payload, done) => {
    if (closing) reply.header("connection", "close");
    done(null, payload);
  });
  // A stream that began before has sent other headers.
  app.addHook("onResponse", (_request, _reply, done) => {
    if (closing) {
      setImmediate(() => {
        app.server.closeIdleConnections();
      });
    }
    done();
  });
}

/** One line a request. Bodies and headers are never logged, queries hold no secrets, and those in paths are masked. */
function installRequestLog(app: FastifyInstance): void {
  app.addHook("onResponse", (request, reply, done) => {
    const facts = {
      method: request.method,
      url: maskTickets(request.url.slice(0, 2048)),
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 10) / 10,
      remoteAddress: request.ip,
    };
    const quiet = request.method === "GET" || request.method === "HEAD";
    if (quiet) request.log.debug(facts, "request answered");
    else request.log.info(facts, "request answered");
    done();
  });
}

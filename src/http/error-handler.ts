import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { type Duplex, Readable } from "node:stream";
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { isDatabaseUnavailable } from "../db/database-errors.ts";
import { DroverError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { MalformedRequest, PROBLEM_MEDIA_TYPE, statusOf, toProblem } from "./problem.ts";

/** Every error that leaves the process over HTTP goes through here and leaves as a problem. */

const RETRY_AFTER_SECONDS = 2;

/** Gives an error of Fastify or the database its code of the catalogue; anything else stays what it is. */
function toDroverError(error: unknown): unknown {
  if (error instanceof DroverError) return error;
  if (isDatabaseUnavailable(error)) {
    // It may have committed and not been able to say so.
    const message =
      "The database does not answer right now. Try again in a moment; with the same Idempotency-Key nothing is done twice.";
    return new DroverError("unavailable", message, { cause: error, retryAfterSeconds: RETRY_AFTER_SECONDS });
  }
  return isFastifyError(error) ? fromFastify(error) : error;
}

function isFastifyError(error: unknown): error is FastifyError {
  return (
    error instanceof Error &&
    "code" in error &&
    typeof error.code === "string" &&
    error.code.startsWith("FST_")
  );
}

function fromFastify(error: FastifyError): unknown {
  switch (error.code) {
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
    case "FST_ERR_CTP_INVALID_TYPE":
      return new DroverError(
        "unsupported_media_type",
        "Send the body with a Content-Type that the path takes, such as application/json.",
      );
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return new DroverError("payload_too_large", "The body is larger than the path takes.");
    case "FST_ERR_BAD_URL":
      return new MalformedRequest("The path is not a valid URL: its percent-encoding is broken.");
    case "FST_ERR_MAX_PARAM_LENGTH":
      return new DroverError(
        "not_found",
        "There is no such path: a part of it is too long for an id or a name.",
      );
    default:
      return (error.statusCode ?? 500) < 500 ? new MalformedRequest(error.message, { cause: error }) : error;
  }
}

/** Sends anything thrown as a problem, and logs what is not the client's fault. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toDroverError(error);
  const problem = toProblem(known, request.id);
  if (problem.status >= 500) request.log.error({ err: known }, "request failed");
  else request.log.debug({ code: problem.code, detail: problem.detail }, "request refused");
  for (const [name, value] of Object.entries(headersFor(known, request))) reply.header(name, value);
  return reply.code(problem.status).type(PROBLEM_MEDIA_TYPE).send(JSON.stringify(problem));
}

function headersFor(error: unknown, request: FastifyRequest): Record<string, string> {
  const status = statusOf(error);
  const headers: Record<string, string> = { "cache-control": "no-store", "x-request-id": request.id };
  if (status === 401) headers["www-authenticate"] = 'Bearer realm="drover"';
  if (status === 426) headers["upgrade"] = "websocket";
  const seconds = error instanceof DroverError ? error.retryAfterSeconds : undefined;
  if (seconds !== undefined) headers["retry-after"] = String(seconds);
  else if (status === 503 || status === 429) headers["retry-after"] = String(RETRY_AFTER_SECONDS);
  // What is left of the body will not be read, so the connection cannot be used again.
  // An upload is drained by its route: closing at once would reset the connection, and the answer would be lost.
  const draining = status === 413 && request.body instanceof Readable;
  if ((status === 413 || status === 408) && !draining) headers["connection"] = "close";
  return headers;
}

/** The answer to a path that is not there, and to a method that the path does not take. */
export function installNotFound(app: FastifyInstance): void {
  const routes = new Map<string, { pattern: RegExp; methods: Set<string> }>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = routes.get(url) ?? { pattern: patternOf(url), methods: new Set<string>() };
    for (const one of [method].flat()) known.methods.add(one);
    routes.set(url, known);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0] ?? "";
    const allowed = new Set<string>();
    for (const { pattern, methods } of routes.values()) {
      if (pattern.test(path)) for (const method of methods) allowed.add(method);
    }
    if (allowed.size === 0 || allowed.has(request.method)) {
      const message = "There is no such path. GET /openapi.json lists every path, /docs shows them.";
      return sendProblem(new DroverError("not_found", message), request, reply);
    }
    const list = [...allowed].sort().join(", ");
    reply.header("allow", list);
    const message = `The path takes ${list}, not ${request.method}.`;
    return sendProblem(new DroverError("method_not_allowed", message), request, reply);
  });
}

/** `/v1/vms/:vm` as an expression; the paths are ours, so nothing in them needs escaping but the dot. */
function patternOf(url: string): RegExp {
  return new RegExp(`^${url.replaceAll(".", "\\.").replaceAll(/:[A-Za-z]+/g, "[^/]+")}$`);
}

/** Answers what Node refuses below HTTP, where there is no request yet. */
export function answerClientError(
  error: Error & { code?: string },
  socket: Socket,
  log: FastifyBaseLogger,
): void {
  if (error.code === "ECONNRESET" || socket.destroyed || !socket.writable) {
    socket.destroy();
    return;
  }
  refuseBelowHttp(belowHttp(error.code), socket, log);
}

/** Answers CONNECT, which Node hands over as a bare socket and otherwise closes without a word. */
export function answerConnect(socket: Duplex, log: FastifyBaseLogger): void {
  // A client that has gone by now needs no answer.
  socket.on("error", () => socket.destroy());
  refuseBelowHttp(new MalformedRequest("This is no proxy: CONNECT is not taken."), socket, log);
}

function refuseBelowHttp(refusal: MalformedRequest, socket: Duplex, log: FastifyBaseLogger): void {
  const requestId: string = newId();
  log.debug({ detail: refusal.message, requestId }, "request refused below HTTP");
  const body = JSON.stringify(toProblem(refusal, requestId));
  const status = statusOf(refusal);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    `content-type: ${PROBLEM_MEDIA_TYPE}; charset=utf-8`,
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${requestId}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}

function belowHttp(code = ""): MalformedRequest {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return new MalformedRequest("The headers are too long.", { status: 431 });
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new MalformedRequest("The request did not arrive in time.", { status: 408, retry: "temporary" });
    default:
      return new MalformedRequest("This is not a valid HTTP request.");
  }
}

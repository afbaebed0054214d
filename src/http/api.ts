import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from "fastify";
import { z } from "zod";
import type { Tx } from "../db/client.ts";
import type { Log } from "../lib/log.ts";
import { type Authenticate, type Authorized, authorize } from "./auth.ts";
import { type ChangeDeps, type ChangeRequest, type Outcome, type Outgoing, runChange } from "./change.ts";
import { etagOf, type IfMatch, parseIfMatch } from "./etag.ts";
import { parseIdempotencyKey, requestHash } from "./idempotency.ts";
import {
  type Api,
  type Exchange,
  NoBody,
  type RawAnswer,
  type Responses,
  type RouteFacts,
  type Shape,
} from "./route.ts";
import { IdOrName, WaitSeconds } from "./schemas.ts";
import { createWebSockets, type SocketSession } from "./web-sockets.ts";

export interface ApiDeps extends ChangeDeps {
  readonly authenticate: Authenticate;
}

/** A route as it was registered: what the OpenAPI document and the tests of access are made of. */
export interface RegisteredRoute extends RouteFacts<AnyAccess, string, Shape, Responses> {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly body: z.ZodType | null;
  readonly upload: { readonly contentTypes: readonly string[]; readonly description: string } | null;
  /** Takes an Idempotency-Key. */
  readonly idempotent: boolean;
}

type AnyAccess = RouteFacts<
  "public" | "token" | "project" | "installation" | "loopback",
  string,
  Shape,
  Responses
>["access"];

/** A call with its types forgotten: routes were checked where they are written. */
interface ErasedCall {
  readonly params: unknown;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: unknown;
  readonly caller: Authorized["caller"];
  readonly project: Authorized["project"];
  readonly actor: string;
  readonly requestId: string;
  readonly origin: string;
  readonly ifMatch: IfMatch | null;
  readonly signal: AbortSignal;
  readonly log: Log;
}

type Handle = (call: ErasedCall) => Promise<Outcome>;
type Prepare = (call: ErasedCall) => Promise<unknown>;
type Change = (tx: Tx, call: ErasedCall, prepared: unknown) => Promise<Outcome>;
type Refresh = (body: unknown, call: ErasedCall) => ReturnType<NonNullable<ChangeRequest["refresh"]>>;
type HandleSocket = (call: ErasedCall) => Promise<SocketSession>;
type HandleRaw = (call: ErasedCall, exchange: Exchange) => Promise<RawAnswer>;

/** Answers one request whose access, parameters and body are checked; null: it has taken the connection over. */
type Respond = (call: ErasedCall, request: FastifyRequest, reply: FastifyReply) => Promise<RawAnswer | null>;

const Switching = z.undefined().meta({ description: "The connection is a WebSocket from here on." });

/** Makes the `Api` on which features hang their routes; `routes` lists them as they come. */
export function createApi(
  app: FastifyInstance,
  deps: ApiDeps,
): { api: Api; routes: readonly RegisteredRoute[] } {
  const routes: RegisteredRoute[] = [];
  const closing = new AbortController();
  app.addHook("preClose", (done) => {
    closing.abort();
    done();
  });
  const sockets = createWebSockets(app);
  const add = (route: RegisteredRoute, respond: Respond): void => {
    routes.push(route);
    register(app, deps, closing.signal, route, respond);
  };
  const api: Api = {
    read: (route) => {
      const handle = route.handle as unknown as Handle;
      const facts = { ...route, body: null, upload: null, idempotent: false };
      add(facts, async (call) => toOutgoing(await handle(call)));
    },
    change: (route) => {
      const change = route.change as unknown as Change;
      const prepare = route.prepare as unknown as Prepare | undefined;
      const refresh = (route.refresh ?? null) as unknown as Refresh | null;
      const idempotent = route.method === "POST" || route.method === "PATCH";
      const facts = { ...route, body: route.body ?? NoBody, upload: null, idempotent };
      add(facts, async (call, request) => {
        // Its refusal counts inside the transaction only: a repeated request is answered as before, whatever it sees.
        const prepared = Promise.resolve(prepare?.(call));
        await prepared.catch(() => undefined);
        const again = refresh === null ? null : (body: unknown) => refresh(body, call);
        const hash = requestHash(call.query, call.body);
        return await runChange(
          deps,
          changeRequest(call, request, idempotent ? hash : null, again),
          async (tx) => change(tx, call, await prepared),
        );
      });
    },
    socket: (route) => {
      const handle = route.handle as unknown as HandleSocket;
      const facts = {
        ...route,
        method: "GET" as const,
        responses: { 101: Switching },
        errors: [...(route.errors ?? []), "upgrade_required" as const],
        body: null,
        upload: null,
        idempotent: false,
      };
      add(facts, async (call, request, reply) => {
        sockets.require(request);
        sockets.accept(request, reply, await handle(call));
        return null;
      });
    },
    raw: (route) => {
      const handle = route.handle as unknown as HandleRaw;
      const facts = {
        ...route,
        body: null,
        upload: route.upload ?? null,
        idempotent: route.upload !== undefined,
      };
      add(facts, (call, request) => handle(call, exchangeOf(deps, call, request)));
    },
  };
  return { api, routes };
}

function register(
  app: FastifyInstance,
  deps: ApiDeps,
  closing: AbortSignal,
  route: RegisteredRoute,
  respond: Respond,
): void {
  const authorized = new WeakMap<FastifyRequest, Authorized>();
  const definition = {
    method: route.method,
    url: route.path,
    schema: schemaOf(route),
    exposeHeadRoute: route.method === "GET" && !isStreamed(route),
    onRequest: async (request: FastifyRequest) => {
      authorized.set(request, await authorize(route.access, request, deps.authenticate));
    },
    preValidation: (request: FastifyRequest, _reply: FastifyReply, done: () => void) => {
      // An absent body is an empty one: then the answer names the members that are missing.
      if (route.body !== null) request.body ??= {};
      done();
    },
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      const signal = AbortSignal.any([closing, goneSignal(reply)]);
      const call = callOf(route, request, authorized.get(request) ?? NOBODY, signal);
      const answer = await respond(call, request, reply);
      return answer === null ? reply : send(reply, answer);
    },
  };
  const { upload } = route;
  if (upload === null) {
    app.route(definition);
    return;
  }
  // In a context of its own, for its bodies are handed on as streams instead of being read.
  void app.register((child, _options, registered) => {
    child.removeAllContentTypeParsers();
    // The content decides what it is, so any type is taken, and none: `curl -T` sends none.
    child.addContentTypeParser([...upload.contentTypes, "*"], (_request, payload, done) => {
      done(null, payload);
    });
    child.route(definition);
    registered();
  });
}

const NOBODY: Authorized = { caller: null, project: null };

function isStreamed(route: RegisteredRoute): boolean {
  return (
    101 in route.responses ||
    Object.values(route.responses).some((response) => !(response instanceof z.ZodType))
  );
}

function schemaOf(route: RegisteredRoute): FastifySchema {
  return {
    params: z.strictObject(
      Object.fromEntries(
        paramNames(route.path).map((name) => [name, route.params?.[name] ?? paramSchema(name)]),
      ),
    ),
    querystring: z.strictObject(queryShape(route)),
    ...(route.body === null ? {} : { body: route.body }),
    response: route.responses,
    operationId: route.operationId,
    tags: [route.tag],
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
  };
}

function paramNames(path: string): string[] {
  return [...path.matchAll(/:([A-Za-z]+)/g)].map((match) => match[1] ?? "");
}

function paramSchema(name: string): z.ZodType {
  return IdOrName.meta({ description: `Id or name of the ${name}.` });
}

const ProjectParameter = IdOrName.optional().meta({
  description: "Id or name of the project; `default` without, or the token's own where it is bound to one.",
});

function queryShape(route: RegisteredRoute): Shape {
  const waits = route.method !== "GET" && 202 in route.responses;
  return {
    ...route.query,
    ...(route.access === "project" ? { project: ProjectParameter } : {}),
    ...(waits ? { wait: WaitSeconds } : {}),
  };
}

function callOf(
  route: RegisteredRoute,
  request: FastifyRequest,
  who: Authorized,
  signal: AbortSignal,
): ErasedCall {
  const ifMatch = route.ifMatch === true ? request.headers["if-match"] : undefined;
  return {
    params: request.params,
    query: request.query as Readonly<Record<string, unknown>>,
    body: request.body,
    ...who,
    actor: who.caller === null ? "anonymous" : `token:${who.caller.tokenName}`,
    requestId: request.id,
    origin: originOf(request),
    ifMatch: ifMatch === undefined ? null : parseIfMatch(ifMatch),
    signal,
    log: request.log,
  };
}

/** By the request's own Host header: it goes back to whoever sent it, and to nobody else. */
function originOf({ protocol, host }: FastifyRequest): string {
  const origin = `${protocol}://${host}`;
  return URL.canParse(origin) ? new URL(origin).origin : "";
}

/** Aborts when the connection closes; after a complete answer nobody listens any more. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once("close", () => {
    controller.abort("the connection closed");
  });
  return controller.signal;
}

// Outside projects; part of a key's scope.
const NIL_UUID = "00000000-0000-0000-0000-000000000000";

function changeRequest(
  call: ErasedCall,
  request: FastifyRequest,
  hash: Uint8Array | null,
  refresh: ChangeRequest["refresh"],
): ChangeRequest {
  const key = hash === null ? null : parseIdempotencyKey(request.headers["idempotency-key"]);
  const wait = call.query["wait"];
  return {
    key: key === null || hash === null ? null : { scope: keyScope(call, request, key), requestHash: hash },
    waitSeconds: typeof wait === "number" ? wait : 0,
    signal: call.signal,
    refresh,
  };
}

function keyScope(call: ErasedCall, request: FastifyRequest, key: string) {
  return {
    tokenId: call.caller?.tokenId ?? NIL_UUID,
    projectId: call.project?.id ?? NIL_UUID,
    method: request.method,
    path: request.url.split("?", 1)[0] ?? "",
    key,
  };
}

function exchangeOf(deps: ApiDeps, call: ErasedCall, request: FastifyRequest): Exchange {
  return {
    headers: request.headers,
    upload: request.body instanceof Readable ? request.body : Readable.from([]),
    commit: (fingerprint, work) => {
      const hash = requestHash(call.query, fingerprint);
      return runChange(deps, changeRequest(call, request, hash, null), work);
    },
  };
}

function toOutgoing(outcome: Outcome): Outgoing {
  const headers: Record<string, string> = {};
  if (outcome.generation !== undefined) headers["etag"] = etagOf(outcome.generation);
  if (outcome.location !== undefined) headers["location"] = outcome.location;
  return { status: outcome.status, headers, body: outcome.body };
}

function send(reply: FastifyReply, answer: RawAnswer): FastifyReply {
  return reply
    .code(answer.status)
    .headers({ ...answer.headers })
    .send(answer.body);
}

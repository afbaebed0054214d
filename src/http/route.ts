import type { Readable } from "node:stream";
import { z } from "zod";
import type { Tx } from "../db/client.ts";
import type { ErrorCode } from "../lib/errors.ts";
import type { OperationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import type { Access, Caller, ProjectRef } from "./auth.ts";
import type { Outcome, Outgoing } from "./change.ts";
import type { IfMatch } from "./etag.ts";
import type { SocketSession } from "./web-sockets.ts";

/**
 * How a route is written. A feature's `*-routes.ts` exports `registerXRoutes(api: Api, deps: XDeps): void`; app.ts
 * calls it in one line. It needs nothing of Fastify:
 *
 *     api.read({
 *       method: "GET", path: "/v1/vms/:vm", access: "project",       // who may call it: see Access in auth.ts
 *       operationId: "getVm", tag: "VMs", summary: "Get a VM",
 *       responses: { 200: VmSchema }, errors: ["not_found"],
 *       handle: async ({ params, project }) => {
 *         const vm = await deps.vms.get(project.id, referenceOf(params.vm));   // throws DroverError not_found
 *         return { status: 200, body: vm, generation: vm.generation };         // generation becomes the ETag
 *       },
 *     });
 *
 *     api.change({
 *       method: "POST", path: "/v1/vms", access: "project",
 *       operationId: "createVm", tag: "VMs", summary: "Create a VM",
 *       body: CreateVmBody, responses: { 202: VmAnswer }, errors: ["name_taken", "no_placement"],
 *       change: async (tx, { body, project, actor, requestId }) => {
 *         const { vm, operationId } = await deps.vms.create(tx, { ... });
 *         return { status: 202, body: { vm }, operation: operationId };
 *       },
 *       refresh: async ({ vm }) => ...                                // the VM anew after ?wait=, null when gone
 *     });
 *
 * - `change` runs in one transaction together with the Idempotency-Key (POST and PATCH), and may run again after a
 *   serialization failure: no effect outside `tx`. A thrown DroverError rolls back everything.
 * - A 202's schema is `z.strictObject({ vm: VmSchema, operation: OperationSchema })`; the operation is added from
 *   its id, `Location` is set, `?wait=` is taken and the runner is woken: none of it is the route's work.
 * - `prepare`, where there is one, runs before the transaction, once; its outcome is given to `change`. A repeated
 *   request runs it too; what it throws refuses the first request only.
 * - `query` is a plain shape (`{ ...pageQuery, power: Power.optional() }`), made strict here; `body` must be a
 *   z.strictObject. An absent body is read as `{}`. Path parameters are ids or names and need no schema.
 * - `ifMatch: true` takes `If-Match`: give `call.ifMatch` to `requireMatch` with the row locked.
 * - `errors` are the codes that are the route's own; those of every route are added.
 * - `api.raw` is for streams: uploads (`upload: true`), logs, server-sent events.
 * - `api.socket` is for WebSockets: `handle` refuses with a DroverError, or answers what to do with the open socket.
 * - Every body, response and named part should carry `.meta({ id: "Vm" })`: it becomes a type of the SDK.
 */

export const TAGS = [
  "VMs",
  "Hosts",
  "Images",
  "Volumes",
  "Networks",
  "SSH keys",
  "Operations",
  "Events",
  "Tokens",
  "Service",
] as const;
export type Tag = (typeof TAGS)[number];

export type Shape = Readonly<Record<string, z.ZodType>>;

/** An answer that is not JSON. */
export interface MediaResponse {
  readonly description: string;
  readonly content: Readonly<Record<string, { readonly schema: z.ZodType }>>;
}

export type Responses = Readonly<Record<number, z.ZodType | MediaResponse>>;

/** The body of status 204. */
export const NoContent = z.undefined().meta({ description: "Done; there is nothing to say." });

/** The body of a change that takes none: nothing, or `{}`. */
export const NoBody = z.strictObject({});

/** The parameters of `/v1/vms/:vm/disks/:disk`: `{ vm: string; disk: string }`. */
export type PathParams<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Readonly<Record<Name, string>> & PathParams<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? Readonly<Record<Name, string>>
    : unknown;

type CallerOf<A extends Access> = A extends "public" ? null : A extends "loopback" ? Caller | null : Caller;
type ProjectOf<A extends Access> = A extends "project"
  ? ProjectRef
  : A extends "token"
    ? ProjectRef | null
    : null;

/** A request, checked. */
export interface Call<A extends Access, Path extends string, Query extends Shape, Body> {
  readonly params: PathParams<Path>;
  readonly query: z.output<z.ZodObject<Query>>;
  readonly body: Body;
  readonly caller: CallerOf<A>;
  readonly project: ProjectOf<A>;
  /** For operations and events: `token:<name>`. */
  readonly actor: string;
  readonly requestId: string;
  /** How the client addressed the service, such as `http://127.0.0.1:7420`; empty where that is no URL. */
  readonly origin: string;
  readonly ifMatch: IfMatch | null;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly log: Log;
}

type BodyOf<Response> = Response extends z.ZodType ? z.output<Response> : never;

/** What a handler answers: a status that the route declares, with the body of that status. */
export type Answer<R extends Responses> = {
  [Status in keyof R & number]: {
    readonly status: Status;
    readonly body: BodyOf<R[Status]>;
    readonly generation?: number;
    readonly location?: string;
  };
}[keyof R & number];

type WithoutOperation<Body> = Omit<Body, "operation">;

/** What a change answers: a 202 without the operation's body but with its id; else an answer. */
export type ChangeAnswer<R extends Responses> =
  | {
      [Status in Exclude<keyof R & number, 202>]: {
        readonly status: Status;
        readonly body: BodyOf<R[Status]>;
        readonly generation?: number;
        readonly location?: string;
        /** The body for a repeated request: without secrets. */
        readonly replayBody?: BodyOf<R[Status]>;
      };
    }[Exclude<keyof R & number, 202>]
  | {
      [Status in Extract<keyof R & number, 202>]: {
        readonly status: Status;
        readonly body: WithoutOperation<BodyOf<R[Status]>>;
        readonly operation: OperationId;
        readonly generation?: number;
      };
    }[Extract<keyof R & number, 202>];

type AcceptedBody<R extends Responses> = R extends { readonly 202: infer Schema }
  ? WithoutOperation<BodyOf<Schema>>
  : never;

/** What every route states. */
export interface RouteFacts<A extends Access, Path extends string, Query extends Shape, R extends Responses> {
  readonly path: Path;
  readonly access: A;
  /** verbNoun: the name of the SDK's function. */
  readonly operationId: string;
  readonly tag: Tag;
  readonly summary: string;
  readonly description?: string;
  /** Schemas of path parameters that are no id or name of what is there; a wrong one is still a 404. */
  readonly params?: Shape;
  readonly query?: Query;
  readonly responses: R;
  readonly errors?: readonly ErrorCode[];
  readonly ifMatch?: boolean;
}

export interface ReadRoute<A extends Access, Path extends string, Query extends Shape, R extends Responses>
  extends RouteFacts<A, Path, Query, R> {
  readonly method: "GET";
  readonly handle: (call: Call<A, Path, Query, undefined>) => Promise<Answer<NoInfer<R>>>;
}

export interface ChangeRoute<
  A extends Access,
  Path extends string,
  Query extends Shape,
  Body extends z.ZodType,
  R extends Responses,
  Prepared,
> extends RouteFacts<A, Path, Query, R> {
  readonly method: "POST" | "PATCH" | "PUT" | "DELETE";
  readonly body?: Body;
  /** Looks at the world outside the database, before the transaction; changes nothing. */
  readonly prepare?: (call: Call<A, Path, Query, z.output<Body>>) => Promise<Prepared>;
  readonly change: (
    tx: Tx,
    call: Call<A, Path, Query, z.output<Body>>,
    prepared: NoInfer<Prepared>,
  ) => Promise<ChangeAnswer<NoInfer<R>>>;
  readonly refresh?: (
    body: AcceptedBody<R>,
    call: Call<A, Path, Query, z.output<Body>>,
  ) => Promise<{ body: AcceptedBody<R>; generation?: number } | null>;
}

/** What a raw route has at hand besides the call. */
export interface Exchange {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** The body as it comes in; only with `upload`. */
  readonly upload: Readable;
  /**
   * Runs a change under the request's Idempotency-Key. `fingerprint` stands for the body: an upload's sha256.
   */
  commit(fingerprint: string, work: (tx: Tx) => Promise<Outcome>): Promise<Outgoing>;
}

/** An answer of a raw route: JSON for an object, else bytes as they are; the headers name the content type. */
export type RawAnswer =
  | Outgoing
  | { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: Readable };

export interface RawRoute<A extends Access, Path extends string, Query extends Shape, R extends Responses>
  extends RouteFacts<A, Path, Query, R> {
  readonly method: "GET" | "POST" | "PUT";
  /** Takes a body of any content type and size as a stream. */
  readonly upload?: { readonly contentTypes: readonly string[]; readonly description: string };
  readonly handle: (call: Call<A, Path, Query, undefined>, exchange: Exchange) => Promise<RawAnswer>;
}

/** A path that becomes a WebSocket; the only answer that it has by itself is 101. */
export interface SocketRoute<A extends Access, Path extends string, Query extends Shape>
  extends Omit<RouteFacts<A, Path, Query, Responses>, "responses" | "ifMatch"> {
  readonly handle: (call: Call<A, Path, Query, undefined>) => Promise<SocketSession>;
}

/** No query parameters of its own. */
type Nothing = Readonly<Record<string, never>>;

/** Where features hang their routes. Made by createApi in api.ts. */
export interface Api {
  read<
    const A extends Access,
    const Path extends string,
    const R extends Responses,
    Query extends Shape = Nothing,
  >(route: ReadRoute<A, Path, Query, R>): void;
  change<
    const A extends Access,
    const Path extends string,
    const R extends Responses,
    Query extends Shape = Nothing,
    Body extends z.ZodType = typeof NoBody,
    Prepared = undefined,
  >(route: ChangeRoute<A, Path, Query, Body, R, Prepared>): void;
  socket<const A extends Access, const Path extends string, Query extends Shape = Nothing>(
    route: SocketRoute<A, Path, Query>,
  ): void;
  raw<
    const A extends Access,
    const Path extends string,
    const R extends Responses,
    Query extends Shape = Nothing,
  >(route: RawRoute<A, Path, Query, R>): void;
}

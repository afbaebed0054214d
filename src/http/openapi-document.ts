import { STATUS_CODES } from "node:http";
import type { z } from "zod";
import type { ErrorCode } from "../lib/errors.ts";
import type { RegisteredRoute } from "./api.ts";
import { mergeInputTwins, typeParts } from "./openapi-schemas.ts";
import { PROBLEM_MEDIA_TYPE, PROBLEMS } from "./problem.ts";
import { NoBody } from "./route.ts";

/**
 * Completes the document that was collected from the routes with what every route has: problems, headers, keys.
 * Pure and deterministic: the document is committed and compared.
 */

export interface OpenApiDocument {
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { schemas: Record<string, unknown> };
}

interface Operation {
  parameters?: unknown[];
  requestBody?: { required?: boolean; content: Record<string, unknown>; description?: string };
  readonly responses: Partial<Record<string, Response>>;
  security?: readonly Readonly<Record<string, readonly string[]>>[];
}

interface Response {
  description: string;
  headers?: Record<string, unknown>;
  content?: Record<string, unknown>;
}

/** Finishes the document in place of each registered route, merges schemas that are the same, and sorts. */
export function finishDocument(
  collected: OpenApiDocument,
  routes: readonly RegisteredRoute[],
): OpenApiDocument {
  const document = structuredClone(collected);
  for (const route of routes) {
    const operation =
      document.paths[route.path.replaceAll(/:([A-Za-z]+)/g, "{$1}")]?.[route.method.toLowerCase()];
    if (operation === undefined)
      throw new Error(`${route.method} ${route.path} is not in the collected document`);
    finishAccess(operation, route);
    finishBody(operation, route);
    finishHeaders(operation, route);
    finishResponses(operation, route);
  }
  const merged = typeParts(mergeInputTwins(document));
  return { ...merged, paths: sortKeys(merged.paths) };
}

function sortKeys<Value>(record: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function finishAccess(operation: Operation, { access }: RegisteredRoute): void {
  if (access === "public") operation.security = [];
  if (access === "loopback") operation.security = [{}, { token: [] }];
}

function finishBody(operation: Operation, { body, upload, method }: RegisteredRoute): void {
  if (upload !== null) {
    const schema = { type: "string", format: "binary" };
    const content = Object.fromEntries(upload.contentTypes.map((type) => [type, { schema }]));
    operation.requestBody = { required: true, description: upload.description, content };
  }
  if (body === null || operation.requestBody === undefined) return;
  if (body === NoBody) {
    delete operation.requestBody;
    return;
  }
  operation.requestBody.required = !acceptsNothing(body);
  const json = operation.requestBody.content["application/json"];
  if (method === "PATCH") operation.requestBody.content["application/merge-patch+json"] = json;
}

/** An absent body is read as `{}`. */
function acceptsNothing(body: z.ZodType): boolean {
  return body.safeParse({}).success;
}

const IF_MATCH = {
  name: "If-Match",
  in: "header",
  required: false,
  description:
    "The revision that the change is meant for, as an ETag showed it; another one is refused with 412.",
  schema: { type: "string" },
  example: '"3"',
};

const IDEMPOTENCY_KEY = {
  name: "Idempotency-Key",
  in: "header",
  required: false,
  description: "Makes the request safe to repeat for 24 hours: the same key and body get the same answer.",
  schema: { type: "string", minLength: 1, maxLength: 255 },
  example: "0d0e8c6e-5b0b-4f9e-8a53-6d2c1f6f3a10",
};

function finishHeaders(operation: Operation, route: RegisteredRoute): void {
  const added = [
    ...(route.ifMatch === true ? [IF_MATCH] : []),
    ...(route.idempotent ? [IDEMPOTENCY_KEY] : []),
  ];
  if (added.length > 0) operation.parameters = [...(operation.parameters ?? []), ...added];
}

const REPLAYED = { description: "`true` on the answer to a repeated request.", schema: { type: "string" } };
const LOCATION = { description: "Where the operation or the new resource is.", schema: { type: "string" } };
const ETAG = { description: "The revision of spec and labels.", schema: { type: "string" } };

function finishResponses(operation: Operation, route: RegisteredRoute): void {
  for (const [status, response] of Object.entries(operation.responses)) {
    if (response === undefined) continue;
    if (response.description === "Default Response") response.description = STATUS_CODES[status] ?? "";
    if (status === "101" || status === "204") delete response.content;
    const headers = {
      ...(route.ifMatch === true && status !== "204" ? { ETag: ETAG } : {}),
      ...(status === "201" || status === "202" ? { Location: LOCATION } : {}),
      ...(route.idempotent ? { "Idempotency-Replayed": REPLAYED } : {}),
    };
    if (Object.keys(headers).length > 0) response.headers = headers;
  }
  for (const [status, codes] of problemsOf(route)) {
    const description = codes.map((code) => `\`${code}\`: ${PROBLEMS[code].title}.`).join(" ");
    const schema = { $ref: "#/components/schemas/Problem" };
    operation.responses[status] ??= { description, content: { [PROBLEM_MEDIA_TYPE]: { schema } } };
  }
}

/** The error codes of a route by status: its own, and those that come with what it takes. */
function problemsOf(route: RegisteredRoute): Map<number, ErrorCode[]> {
  const codes = new Set<ErrorCode>(["invalid_request", ...(route.errors ?? []), "internal"]);
  if (route.access !== "public")
    for (const code of ["unauthenticated", "forbidden", "unavailable"] as const) codes.add(code);
  if (route.access === "project" || route.path.includes(":")) codes.add("not_found");
  if (route.body !== null || route.upload !== null)
    codes.add("unsupported_media_type").add("payload_too_large");
  if (route.idempotent) codes.add("idempotency_key_reused").add("idempotency_key_in_progress");
  if (route.ifMatch === true) codes.add("precondition_failed");
  const byStatus = new Map<number, ErrorCode[]>([[400, ["invalid_request"]]]);
  for (const code of codes) {
    const { status } = PROBLEMS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return byStatus;
}

import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import type { ApiDocument, Route } from "./document.ts";
import type { FuzzRequest } from "./request.ts";
import type { Outcome, WireAnswer } from "./wire.ts";

/** What must hold of every answer, whatever was asked. */
export type Check = (request: FuzzRequest, outcome: Outcome) => readonly string[];

/** Statuses of requests that are broken below the level of routes; no route documents them for itself. */
const OF_EVERY_ROUTE: ReadonlySet<number> = new Set([400, 401, 404, 405, 408, 413, 414, 415, 417, 431]);
/** A body of this size may still be on its way when it is refused, and the answer be lost with the connection. */
const LARGE_BODY_BYTES = 60_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

export function createCheck(document: ApiDocument): Check {
  const schemas = createSchemas(document);
  return (request, outcome) => {
    if (outcome.kind === "hung") return ["no end of the answer in time"];
    if (outcome.kind === "unreadable") return [`no HTTP: ${outcome.text.slice(0, 200)}`];
    if (outcome.kind === "closed") return mayGoUnanswered(request) ? [] : ["closed without an answer"];
    return outcome.answers.flatMap((answer) => checkAnswer(schemas, request, answer));
  };
}

function mayGoUnanswered({ delivery, body }: FuzzRequest): boolean {
  if (delivery === "truncated" || delivery === "tooLong" || delivery === "abandoned") return true;
  return (body?.length ?? 0) > LARGE_BODY_BYTES;
}

interface Schemas {
  readonly problem: ValidateFunction;
  answer(route: Route, status: number): ValidateFunction;
}

function createSchemas(document: ApiDocument): Schemas {
  const ajv = new Ajv2020({ strict: false, allErrors: false, formats: { uuid: UUID, "date-time": TIME } });
  ajv.addSchema(document, "api", undefined, false);
  const compiled = new Map<string, ValidateFunction>();
  const at = (...parts: readonly string[]): ValidateFunction => {
    const pointer = parts.map((part) => `/${part.replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
    const $ref = `api#${encodeURI(pointer)}`;
    const validate = compiled.get($ref) ?? ajv.compile({ $ref });
    compiled.set($ref, validate);
    return validate;
  };
  return {
    problem: at("components", "schemas", "Problem"),
    answer: ({ path, method }, status) =>
      at(
        "paths",
        path,
        method.toLowerCase(),
        "responses",
        String(status),
        "content",
        "application/json",
        "schema",
      ),
  };
}

function checkAnswer(schemas: Schemas, request: FuzzRequest, answer: WireAnswer): readonly string[] {
  const { status } = answer;
  if (status >= 500) return [`answered ${status}: ${answer.body.toString()}`];
  if (request.method === "HEAD") return answer.body.length === 0 ? [] : ["a HEAD was answered with a body"];
  if (status >= 400) return checkProblem(schemas, request, answer);
  if (status < 200 || status >= 300) return [`answered ${status}`];
  return request.route === null ? [] : checkSuccess(schemas, request.route, answer);
}

function checkProblem(schemas: Schemas, { route }: FuzzRequest, answer: WireAnswer): readonly string[] {
  const { status, headers, body } = answer;
  const type = headers.get("content-type") ?? "";
  if (!type.startsWith("application/problem+json")) return [`${status} is ${type}: ${body.toString()}`];
  const problem = parse(body);
  if (!schemas.problem(problem)) return [`no problem: ${errorsOf(schemas.problem)}: ${body.toString()}`];
  const { status: inside, requestId, detail } = problem as Readonly<Record<string, unknown>>;
  const wrong: string[] = [];
  if (inside !== status) wrong.push(`the problem says ${String(inside)}, the status line ${status}`);
  if (requestId !== headers.get("x-request-id") || requestId === "")
    wrong.push("requestId is not X-Request-Id");
  if (detail === "") wrong.push("the problem says nothing");
  if (route !== null && !OF_EVERY_ROUTE.has(status) && !route.statuses.has(status)) {
    wrong.push(`${route.operationId} does not document ${status}: ${body.toString()}`);
  }
  return wrong;
}

function checkSuccess(schemas: Schemas, route: Route, answer: WireAnswer): readonly string[] {
  const types = route.statuses.get(answer.status);
  if (types === undefined) return [`${route.operationId} does not document ${answer.status}`];
  const type = (answer.headers.get("content-type") ?? "").split(";", 1)[0] ?? "";
  if (types.length === 0) return answer.body.length === 0 ? [] : ["a body where there should be none"];
  if (!types.includes(type)) return [`${route.operationId} does not document ${type}`];
  if (type !== "application/json") return [];
  const validate = schemas.answer(route, answer.status);
  return validate(parse(answer.body))
    ? []
    : [`not as documented: ${errorsOf(validate)}: ${answer.body.toString()}`];
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}

function errorsOf({ errors }: ValidateFunction): string {
  return (errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message ?? ""}`).join("; ");
}

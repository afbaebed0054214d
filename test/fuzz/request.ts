import type { Parameter, Route } from "./document.ts";
import { type Fitting, fittingValue, NAME_COUNT } from "./fitting.ts";
import {
  NASTY_CONTENT_TYPES,
  NASTY_HEADERS,
  NASTY_QUERIES,
  NASTY_SEGMENTS,
  NASTY_TEXTS,
  ODD_METHODS,
} from "./nasty.ts";
import type { Random } from "./random.ts";
import { spoilText, spoilValue } from "./spoil.ts";
import { completeValue, jsonSchemaOf, type SweepCase, withWrong } from "./sweep.ts";
import { CONTENTS, ODD_CONTENTS } from "./uploads.ts";

/** How the bytes are sent: as they should be, late, or not all of them. */
export type Delivery =
  | "whole"
  | "slow"
  | "chunked"
  /** Half of it, then the end of the stream. */
  | "truncated"
  /** Half of it, then the connection is broken. */
  | "abandoned"
  /** The Content-Length says more than there is, less, or nothing that is a number. */
  | "tooLong"
  | "tooShort"
  | "noNumber";

export interface FuzzRequest {
  /** The route that it reaches for sure; null where its path or method is odd. */
  readonly route: Route | null;
  readonly method: string;
  /** Path and query as they are written. */
  readonly target: string;
  readonly version: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer | null;
  readonly delivery: Delivery;
}

/** A request that is being made; spoilers change it in place. */
interface Draft {
  route: Route | null;
  method: string;
  segments: string[];
  query: string[];
  version: string;
  headers: (readonly [string, string])[];
  value: unknown;
  body: Buffer | null;
  delivery: Delivery;
}

const SPOILED_TWICE_SHARE = 0.15;

/** Makes one request to a route: as the document asks for it, or, in `spoiledShare` of cases, with a thing or two wrong. */
export function makeRequest(fitting: Fitting, route: Route, spoiledShare: number): FuzzRequest {
  const { random } = fitting;
  const draft = fittingDraft(fitting, route);
  if (random.chance(spoiledShare)) {
    spoil(fitting, draft, route);
    if (random.chance(SPOILED_TWICE_SHARE)) spoil(fitting, draft, route);
  }
  const query = draft.query.length === 0 ? "" : `?${draft.query.join("&")}`;
  const { method, version, headers, body, delivery } = draft;
  return {
    ...{ route: draft.route, method, version, headers, body, delivery },
    target: `${draft.segments.join("/")}${query}`,
  };
}

/** Makes the request in which one member, parameter or header is wrong. `index` makes names new. */
export function makeSweepRequest(fitting: Fitting, found: SweepCase, index: number): FuzzRequest {
  const { route } = found;
  const segments = route.path.split("/").map((segment) => fillSegment(fitting, route, segment, 0));
  const schema = jsonSchemaOf(route);
  const complete = schema === null ? null : withNewName(completeValue(fitting, schema), index);
  const value = found.kind === "member" ? withWrong(complete, found.path, found.value) : complete;
  const query = found.kind === "parameter" ? `?${written(found.name, found.value)}` : "";
  return {
    ...{ route, method: route.method, version: "HTTP/1.1", delivery: "whole" },
    headers: [
      ...(schema === null ? [] : [["Content-Type", "application/json"] as const]),
      ...(found.kind === "header" ? [[found.name, found.value] as const] : []),
    ],
    body: schema === null ? null : Buffer.from(JSON.stringify(value)),
    target: `${segments.join("/")}${query}`,
  };
}

function withNewName(value: unknown, index: number): unknown {
  const hasName = typeof value === "object" && value !== null && "name" in value;
  return hasName ? { ...value, name: `sweep-${index}` } : value;
}

function fittingDraft(fitting: Fitting, route: Route): Draft {
  const { random } = fitting;
  const draft: Draft = {
    ...{ route, method: route.method, version: "HTTP/1.1", delivery: "whole", value: undefined, body: null },
    segments: route.path.split("/").map((segment) => fillSegment(fitting, route, segment)),
    query: route.parameters
      .filter((parameter) => parameter.in === "query" && (parameter.required === true || random.chance(0.25)))
      .flatMap((parameter) => writeParameter(fitting, parameter)),
    headers: fittingHeaders(random, route),
  };
  const content = route.body.length === 0 ? null : random.pick(route.body);
  if (content === null) return draft;
  const [type, schema] = content;
  draft.headers.push(["Content-Type", type]);
  if (type === "application/octet-stream") {
    // What fits the kind is drawn more often than by chance: else hardly an upload succeeds.
    const fitting = Object.entries(CONTENTS).filter(([kind]) => draft.query.includes(`kind=${kind}`));
    const any = [...Object.values(CONTENTS), ...ODD_CONTENTS];
    draft.body = random.pick(
      random.chance(0.5) && fitting.length > 0 ? fitting.map(([, bytes]) => bytes) : any,
    );
  } else {
    const value = fittingValue(fitting, schema);
    const usual = USUAL_BODIES[route.operationId]?.(fitting, draft.segments);
    draft.value = usual !== undefined && random.chance(0.6) ? usual : value;
    draft.body = Buffer.from(JSON.stringify(draft.value));
  }
  return draft;
}

const MISSING_SHARE = 0.15;
/** Of routes that serve only some of what there is: the one that they serve, drawn more often than by chance. */
const SERVED: ReadonlyMap<string, string> = new Map([
  ["forgetHost", "host-down"],
  ["getImageLog", "built"],
]);

/** Bodies whose members must fit each other, which by chance they hardly ever do. */
const USUAL_BODIES: Readonly<Record<string, (fitting: Fitting, segments: readonly string[]) => unknown>> = {
  // Whoever forgets a host must name it twice.
  forgetHost: (_fitting, segments) => ({ confirmName: segments[3] }),
  attachVmDisk: ({ random }) => ({ name: `fuzz-${random.below(NAME_COUNT)}`, sizeGib: 1 }),
  bringImageToHost: ({ known, random }) => ({ image: random.pick(known["imageId"] ?? []), pool: "default" }),
};

function fillSegment(
  { known, random }: Fitting,
  route: Route,
  segment: string,
  missingShare = MISSING_SHARE,
): string {
  const name = /^\{(.+)\}$/.exec(segment)?.[1];
  if (name === undefined) return segment;
  const isNew = route.operationId === "uploadImage" && random.chance(0.8);
  if (isNew) return `fuzz-${random.below(NAME_COUNT)}`;
  const served = SERVED.get(route.operationId);
  if (served !== undefined && random.chance(0.5)) return served;
  const missing = ["missing", "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77"];
  return random.chance(missingShare) ? random.pick(missing) : random.pick(known[name] ?? missing);
}

/** A list is written with commas or by repeating the parameter. */
function writeParameter(fitting: Fitting, { name, schema }: Parameter): string[] {
  const value = fittingValue(fitting, schema, name);
  if (!Array.isArray(value)) return [written(name, String(value))];
  const texts = value.map(String);
  return fitting.random.chance(0.5)
    ? [written(name, texts.join(","))]
    : texts.map((text) => written(name, text));
}

function written(name: string, value: string): string {
  return `${encodeURIComponent(name.toWellFormed())}=${encodeURIComponent(value.toWellFormed())}`;
}

function fittingHeaders(random: Random, route: Route): (readonly [string, string])[] {
  const headers: (readonly [string, string])[] = [];
  const takes = (name: string): boolean => route.parameters.some((parameter) => parameter.name === name);
  if (takes("Idempotency-Key") && random.chance(0.15)) {
    headers.push(["Idempotency-Key", `key-${random.below(40)}`]);
  }
  if (takes("If-Match") && random.chance(0.15)) headers.push(["If-Match", random.pick(["*", '"1"', '"2"'])]);
  if (route.statuses.get(200)?.includes("text/event-stream") === true && random.chance(0.4)) {
    headers.push(["Accept", "text/event-stream"]);
  }
  return headers;
}

const SPOILERS = [spoilPath, spoilQuery, spoilHeaders, spoilMethod, spoilContentType, spoilDelivery] as const;

/** Half of what is spoiled is the body, where there is one: it has the most places to be wrong in. */
function spoil(fitting: Fitting, draft: Draft, route: Route): void {
  const { random } = fitting;
  if (draft.value !== undefined && random.chance(0.5)) spoilBody(fitting, draft);
  else random.pick(SPOILERS)(fitting, draft, route);
}

function spoilBody({ random }: Fitting, draft: Draft): void {
  if (random.chance(0.6)) {
    draft.value = spoilValue(random, draft.value);
    draft.body = Buffer.from(JSON.stringify(draft.value));
  } else {
    draft.body = spoilText(random, JSON.stringify(draft.value));
  }
}

function spoilPath({ random }: Fitting, draft: Draft, route: Route): void {
  const places = route.path.split("/").flatMap((segment, at) => (segment.startsWith("{") ? [at] : []));
  draft.route = null;
  if (places.length > 0 && random.chance(0.7)) {
    draft.segments[random.pick(places)] = random.pick(NASTY_SEGMENTS);
    return;
  }
  const at = random.below(draft.segments.length);
  draft.segments.splice(Math.max(1, at), random.below(2), random.pick(["", ...NASTY_SEGMENTS]));
}

function spoilQuery({ random }: Fitting, draft: Draft, route: Route): void {
  const names = route.parameters.filter((parameter) => parameter.in === "query").map(({ name }) => name);
  switch (random.below(4)) {
    case 0:
      draft.query = [random.pick(NASTY_QUERIES)];
      return;
    case 1:
      draft.query.push(written(random.pick(["surplus", ...NASTY_TEXTS]), "1"));
      return;
    case 2:
      draft.query = draft.query.flatMap((part) => [part, part]);
      return;
    default: {
      const name = random.pick(["project", ...names]);
      draft.query = draft.query.filter((part) => !part.startsWith(`${name}=`));
      draft.query.push(written(name, random.pick(NASTY_TEXTS)));
    }
  }
}

function spoilHeaders({ random }: Fitting, draft: Draft): void {
  const [name, value] = random.pick(NASTY_HEADERS);
  if (random.chance(0.8)) draft.headers = draft.headers.filter(([other]) => other !== name);
  draft.headers.push([name, value]);
  // An empty Authorization beside the real one, and a second Host, are cases of their own.
  if (random.chance(0.1)) draft.headers.push([name, value]);
}

function spoilMethod({ random }: Fitting, draft: Draft): void {
  draft.route = null;
  switch (random.below(8)) {
    case 0:
      draft.version = random.pick([
        "HTTP/1.0",
        "HTTP/0.9",
        "HTTP/9.9",
        "HTTP/2.0",
        "HTTP/1.1 x",
        "",
        "ICE/1.0",
      ]);
      return;
    case 1:
      draft.segments = random.pick([
        ["http://127.0.0.1:1/v1/vms"],
        ["*"],
        [""],
        ["x"],
        ["//x/v1/vms"],
        ["/\u00e9"],
      ]);
      return;
    default:
      draft.method = random.pick(ODD_METHODS);
  }
}

function spoilContentType({ random }: Fitting, draft: Draft): void {
  draft.headers = draft.headers.filter(([name]) => name !== "Content-Type");
  if (random.chance(0.85)) draft.headers.push(["Content-Type", random.pick(NASTY_CONTENT_TYPES)]);
  // Also where no body is taken.
  draft.body ??= Buffer.from(random.pick(["{}", "null", "x", '{"a":1}', ""]));
}

const DELIVERIES: readonly Delivery[] = [
  ...(["slow", "chunked", "truncated", "abandoned", "tooLong", "tooShort", "noNumber"] as const),
];

function spoilDelivery({ random }: Fitting, draft: Draft): void {
  draft.delivery = random.pick(DELIVERIES);
  if (draft.method !== "GET") draft.body ??= Buffer.from("{}");
}

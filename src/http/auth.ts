import { DroverError } from "../lib/errors.ts";
import type { ProjectId, TokenId } from "../lib/ids.ts";
import { isIdOrName } from "./schemas.ts";

/** Who asks: a token, and what it reaches. */
export interface Caller {
  readonly tokenId: TokenId;
  readonly tokenName: string;
  /** `all`: every project, the hosts and the tokens. */
  readonly projectIds: readonly ProjectId[] | "all";
}

export interface ProjectRef {
  readonly id: ProjectId;
  readonly name: string;
}

/** What a secret and a project's name or id were found to be, in one look-up. */
export interface Identity {
  readonly caller: Caller;
  /** The project that was asked for; null where there is none of that name or id. */
  readonly project: ProjectRef | null;
}

/**
 * Looks a secret up; null when it is unknown, revoked or expired. `project` is an id, a name, or null for the
 * token's own project (`default` for a token that reaches all). Never cached: a revoked token stops at once.
 */
export type Authenticate = (secret: string, project: string | null) => Promise<Identity | null>;

/**
 * Who may call a route, stated beside its verb:
 * - `public`: anybody, without a token;
 * - `token`: any valid token; the handler must keep to `projectScope(call.caller, call.project)` or `reaches`, and
 *   may take `project` in its query, which narrows the answer;
 * - `project`: a token that reaches the project selected by `?project=`; the handler gets it as `call.project`;
 * - `installation`: a token that reaches everything: hosts, tokens;
 * - `loopback`: anybody on this machine, and from elsewhere a token that reaches everything.
 */
export type Access = "public" | "token" | "project" | "installation" | "loopback";

const BEARER = /^Bearer +([\x21-\x7e]{1,512})$/i;

/** The secret in an `Authorization` header. Throws `unauthenticated` where there is none. */
export function bearerSecret(header: string | undefined): string {
  if (header === undefined) throw unauthenticated("Send a token: `Authorization: Bearer <token>`.");
  const secret = BEARER.exec(header.trim())?.[1];
  if (secret === undefined) {
    throw unauthenticated("The Authorization header must be of the form `Bearer <token>`.");
  }
  return secret;
}

function unauthenticated(message: string): DroverError {
  return new DroverError("unauthenticated", message);
}

/** True when the caller reaches what belongs to `projectId`; null belongs to the installation (a host). */
export function reaches(caller: Caller, projectId: ProjectId | null): boolean {
  if (caller.projectIds === "all") return true;
  return projectId !== null && caller.projectIds.includes(projectId);
}

/** What a list may show: one project's, or everything (null). */
export function projectScope(caller: Caller, selected: ProjectRef | null): ProjectId | null {
  if (selected !== null) return selected.id;
  if (caller.projectIds === "all") return null;
  const [only, ...more] = caller.projectIds;
  if (only !== undefined && more.length === 0) return only;
  throw new DroverError("forbidden", "The token reaches several projects. Choose one with ?project=.");
}

/** Refuses tokens that are bound to projects. */
function requireInstallation(caller: Caller): void {
  if (caller.projectIds === "all") return;
  throw new DroverError(
    "forbidden",
    `The token "${caller.tokenName}" is bound to a project. Use a token that reaches every project.`,
  );
}

/** The selected project. A bound token learns nothing about projects that it does not reach. */
function requireProject(identity: Identity, asked: string | null): ProjectRef {
  const { caller, project } = identity;
  if (project !== null && reaches(caller, project.id)) return project;
  const name = asked ?? "default";
  if (caller.projectIds === "all") throw new DroverError("not_found", `There is no project "${name}".`);
  throw new DroverError("forbidden", `The token "${caller.tokenName}" does not reach a project "${name}".`);
}

/** True for an address of this machine itself, as sockets show it. */
export function isLoopback(address: string | undefined): boolean {
  if (address === undefined) return false;
  return address === "::1" || /^(::ffff:)?127\./.test(address);
}

/** What access was found to be; null where the route needs none. */
export interface Authorized {
  readonly caller: Caller | null;
  readonly project: ProjectRef | null;
}

/** The parts of a request that access depends on. */
export interface AccessRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly query: unknown;
  readonly ip: string;
}

/** Decides whether a request may go on. Throws `unauthenticated`, `forbidden`, or `not_found` for the project. */
export async function authorize(
  access: Access,
  request: AccessRequest,
  authenticate: Authenticate,
): Promise<Authorized> {
  if (access === "public" || (access === "loopback" && isLocal(request)))
    return { caller: null, project: null };
  const { authorization } = request.headers;
  const secret = bearerSecret(typeof authorization === "string" ? authorization : undefined);
  const narrows = access === "project" || access === "token";
  const asked = narrows ? askedProject(request.query) : null;
  const identity = await authenticate(secret, asked);
  if (identity === null) throw unauthenticated("The token is not known, was revoked or has expired.");
  const { caller } = identity;
  if (access === "installation" || access === "loopback") requireInstallation(caller);
  const selects = access === "project" || asked !== null;
  return { caller, project: selects ? requireProject(identity, asked) : null };
}

/** A proxy on this machine speaks for others, and says so. */
function isLocal({ ip, headers }: AccessRequest): boolean {
  return isLoopback(ip) && headers["x-forwarded-for"] === undefined && headers["forwarded"] === undefined;
}

/** Read before the query is checked: what cannot be a project's name is refused with the rest of the query. */
function askedProject(query: unknown): string | null {
  const project: unknown =
    typeof query === "object" && query !== null ? Reflect.get(query, "project") : undefined;
  return typeof project === "string" && isIdOrName(project) ? project : null;
}

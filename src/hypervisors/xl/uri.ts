import { DEFAULT_POOL } from "./host-file-paths.ts";

/**
 * URIs of Xen hosts that are driven by xl: `xl:///` for this machine, `xl+ssh://[user@]host[:port]` for another. Their
 * parameters name what xl itself has no names for: `pool=NAME:/DIRECTORY` and `network=NAME:BRIDGE`, each as often as
 * needed.
 */

export type XlEndpoint =
  | { readonly kind: "local" }
  | { readonly kind: "ssh"; readonly user: string; readonly host: string; readonly port: number };

/** A directory on the host whose files are volumes. */
export interface XlPool {
  readonly name: string;
  /** Absolute, without a slash at its end. */
  readonly path: string;
}

/** A name for a bridge of the host. */
export interface XlNetwork {
  readonly name: string;
  readonly bridge: string;
}

export interface XlUri {
  readonly endpoint: XlEndpoint;
  /** Never empty: without any in the URI there is the one that Drover makes itself. */
  readonly pools: readonly XlPool[];
  readonly networks: readonly XlNetwork[];
  /** The URI in its canonical form; holds no secret. */
  readonly canonical: string;
}

/** URI schemes that the xl driver serves. */
export const XL_SCHEMES = ["xl", "xl+ssh"] as const;

const SSH_PORT = 22;
/** Xen's tools work for root only. */
const DEFAULT_USER = "root";

const USER = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/;
const HOST_NAME = /^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$/;
const IPV6 = /^[0-9A-Fa-f:.]+$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const DIRECTORY = /^(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*)+$/;
const DIRECTORY_MAX_LENGTH = 255;
/** What Linux takes as an interface's name (IFNAMSIZ), less what would need quoting. */
const BRIDGE = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$/;

class UriError extends Error {}

/** Reads a host's URI, or says what is wrong with it. Touches nothing. */
export function parseXlUri(text: string): XlUri | { readonly error: string } {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof UriError) return { error: error.message };
    throw error;
  }
}

/** True for a name that a bridge of a host can have; it becomes a part of xl's configuration. */
export function isBridgeName(text: string): boolean {
  return BRIDGE.test(text);
}

function parse(text: string): XlUri {
  const url = URL.parse(text);
  // Without "//" a URL has no place for a host.
  if (url === null || !/^[a-z0-9+]+:\/\//i.test(text)) {
    throw new UriError("not a URI; give one such as xl:/// or xl+ssh://root@host");
  }
  if (url.password !== "") throw new UriError("a password in the URI is refused; use the host's credentials");
  if (url.hash !== "") throw new UriError("a '#' part has no meaning in a host URI");
  if (url.pathname !== "" && url.pathname !== "/") {
    throw new UriError(`a path has no meaning in a host URI: leave '${url.pathname}' out`);
  }
  const endpoint = endpointOf(url);
  const { pools, networks } = readParameters(url.searchParams);
  const canonical = canonicalUri(endpoint, pools, networks);
  return { endpoint, pools: pools.length === 0 ? [DEFAULT_POOL] : pools, networks, canonical };
}

function endpointOf(url: URL): XlEndpoint {
  switch (url.protocol) {
    case "xl:":
      if (url.hostname !== "" || url.username !== "" || url.port !== "") {
        throw new UriError("name the transport for a remote host: xl+ssh://root@host");
      }
      return { kind: "local" };
    case "xl+ssh:":
      return { kind: "ssh", user: readUser(url.username), ...authority(url) };
    default:
      throw new UriError(`scheme '${url.protocol.slice(0, -1)}' is not one of ${XL_SCHEMES.join(", ")}`);
  }
}

function readUser(text: string): string {
  if (text === "") return DEFAULT_USER;
  if (!USER.test(text)) throw new UriError("the user name may hold letters, digits and . _ - only");
  return text;
}

/** Host without brackets, and port. A host never begins with '-': it becomes an argument of ssh. */
function authority(url: URL): { readonly host: string; readonly port: number } {
  const bracketed = /^\[(.*)\]$/.exec(url.hostname)?.[1];
  const host = (bracketed ?? url.hostname).toLowerCase();
  if (host === "") throw new UriError("the host is missing: xl+ssh://root@host");
  const wellFormed = bracketed === undefined ? HOST_NAME.test(host) && host.length <= 253 : IPV6.test(host);
  if (!wellFormed) {
    throw new UriError("the host must be a DNS name, an IPv4 address or an IPv6 address in brackets");
  }
  if (url.port === "0") throw new UriError("port 0 cannot be connected to");
  return { host, port: url.port === "" ? SSH_PORT : Number(url.port) };
}

function readParameters(search: URLSearchParams): {
  readonly pools: readonly XlPool[];
  readonly networks: readonly XlNetwork[];
} {
  const pools: XlPool[] = [];
  const networks: XlNetwork[] = [];
  for (const [parameter, value] of search) {
    switch (parameter) {
      case "pool":
        pools.push(readPool(value));
        break;
      case "network":
        networks.push(readNetwork(value));
        break;
      default:
        throw new UriError(`parameter '${parameter}' is not accepted; only 'pool' and 'network' are`);
    }
  }
  refuseTwice(
    "pool",
    pools.map(({ name }) => name),
  );
  refuseTwice(
    "network",
    networks.map(({ name }) => name),
  );
  // A volume that stands in two pools could be changed from both sides at once.
  refuseTwice(
    "the pool directory",
    pools.map(({ path }) => path),
  );
  return { pools: byName(pools), networks: byName(networks) };
}

function readPool(text: string): XlPool {
  const [name, path] = splitAtColon(text);
  if (!NAME.test(name) || !DIRECTORY.test(path) || path.length > DIRECTORY_MAX_LENGTH) {
    throw new UriError(
      "'pool' must be NAME:/DIRECTORY, an absolute path of letters, digits and . _ -, without a slash at its end",
    );
  }
  return { name, path };
}

function readNetwork(text: string): XlNetwork {
  const [name, bridge] = splitAtColon(text);
  if (!NAME.test(name) || !isBridgeName(bridge)) {
    throw new UriError("'network' must be NAME:BRIDGE, of letters, digits and . _ -, a bridge of at most 15");
  }
  return { name, bridge };
}

function splitAtColon(text: string): readonly [string, string] {
  const at = text.indexOf(":");
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function refuseTwice(what: string, names: readonly string[]): void {
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new UriError(`${what} '${twice}' is given twice`);
}

function byName<T extends { readonly name: string }>(items: readonly T[]): readonly T[] {
  return items.toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

function canonicalUri(
  endpoint: XlEndpoint,
  pools: readonly XlPool[],
  networks: readonly XlNetwork[],
): string {
  const parts = [
    ...pools.map(({ name, path }) => `pool=${name}:${path}`),
    ...networks.map(({ name, bridge }) => `network=${name}:${bridge}`),
  ];
  const query = parts.length === 0 ? "" : `?${parts.join("&")}`;
  if (endpoint.kind === "local") return `xl:///${query}`;
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  const port = endpoint.port === SSH_PORT ? "" : `:${endpoint.port}`;
  return `xl+ssh://${endpoint.user}@${host}${port}/${query}`;
}

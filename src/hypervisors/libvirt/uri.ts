/**
 * URIs of libvirt hosts, in libvirt's own form. Of its parameters only `socket` and `mode` are taken: others
 * (`command`, `no_verify`, `keyfile` and the like) start programs, read files or switch checks off.
 */

/** Which daemon serves a local or remote host; `auto` takes what is there. */
export type DaemonMode = "auto" | "direct" | "legacy";

export type LibvirtEndpoint =
  | { readonly kind: "unix"; readonly socket: string | null; readonly mode: DaemonMode }
  | {
      readonly kind: "ssh";
      readonly user: string | null;
      readonly host: string;
      readonly port: number | null;
      readonly socket: string | null;
      readonly mode: DaemonMode;
    }
  | { readonly kind: "tls" | "tcp"; readonly host: string; readonly port: number };

export interface LibvirtUri {
  readonly endpoint: LibvirtEndpoint;
  /** What the daemon is told to open. */
  readonly open: "qemu:///system" | "test:///default";
  /** The URI in its canonical form; holds no secret. */
  readonly canonical: string;
}

/** URI schemes that the libvirt driver serves. */
export const LIBVIRT_SCHEMES = [
  "qemu",
  "qemu+unix",
  "qemu+tls",
  "qemu+ssh",
  "qemu+tcp",
  "test+unix",
] as const;

/** libvirtd's registered ports (remote driver documentation, "Transports"). */
const TLS_PORT = 16_514;
const TCP_PORT = 16_509;

const USER = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/;
const HOST_NAME = /^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$/;
const IPV6 = /^[0-9A-Fa-f:.]+$/;
const SOCKET_PATH = /^\/[A-Za-z0-9._/-]{1,106}$/;
const SCHEMES: readonly string[] = LIBVIRT_SCHEMES;
const MODES: readonly string[] = ["auto", "direct", "legacy"] satisfies DaemonMode[];

class UriError extends Error {}

/** Reads a host's URI, or says what is wrong with it. Touches nothing. */
export function parseLibvirtUri(text: string): LibvirtUri | { readonly error: string } {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof UriError) return { error: error.message };
    throw error;
  }
}

function parse(text: string): LibvirtUri {
  const url = URL.parse(text);
  // Without "//" a URL has no place for a host and its path does not begin with a slash.
  if (url === null || !/^[a-z0-9+]+:\/\//i.test(text)) {
    throw new UriError("not a URI; give one such as qemu:///system or qemu+ssh://root@host/system");
  }
  if (url.password !== "") throw new UriError("a password in the URI is refused; use the host's credentials");
  if (url.hash !== "") throw new UriError("a '#' part has no meaning in a host URI");
  const scheme = url.protocol.slice(0, -1);
  if (!SCHEMES.includes(scheme)) {
    throw new UriError(`scheme '${scheme}' is not one of ${LIBVIRT_SCHEMES.join(", ")}`);
  }
  const open = openedName(scheme, url.pathname);
  const parameters = readParameters(url.searchParams);
  const endpoint = endpointOf(scheme, url, parameters);
  return { endpoint, open, canonical: canonicalUri(open, endpoint) };
}

function openedName(scheme: string, path: string): LibvirtUri["open"] {
  if (scheme === "test+unix") {
    if (path === "/default") return "test:///default";
    throw new UriError("libvirt's test driver is reached as test+unix:///default?socket=…");
  }
  if (path === "/system") return "qemu:///system";
  if (path === "/session") {
    throw new UriError("session mode (/session) is not supported: use the system daemon (/system)");
  }
  throw new UriError(`the path must be /system, not '${path}'`);
}

interface Parameters {
  readonly socket: string | null;
  readonly mode: DaemonMode;
}

function readParameters(search: URLSearchParams): Parameters {
  const seen = new Map<string, string>();
  for (const [name, value] of search) {
    if (name !== "socket" && name !== "mode") {
      throw new UriError(`parameter '${name}' is not accepted; only 'socket' and 'mode' are`);
    }
    if (seen.has(name)) throw new UriError(`parameter '${name}' is given twice`);
    seen.set(name, value);
  }
  const socket = seen.get("socket") ?? null;
  if (socket !== null && !SOCKET_PATH.test(socket)) {
    throw new UriError(
      "'socket' must be an absolute path of letters, digits and . _ / -, at most 107 characters",
    );
  }
  return { socket, mode: readMode(seen.get("mode")) };
}

function readMode(text: string | undefined): DaemonMode {
  if (text === undefined) return "auto";
  if (!MODES.includes(text)) throw new UriError("'mode' must be auto, direct or legacy");
  return text as DaemonMode;
}

function endpointOf(scheme: string, url: URL, parameters: Parameters): LibvirtEndpoint {
  switch (scheme) {
    case "qemu":
      if (url.hostname !== "") {
        throw new UriError("name the transport for a remote host: qemu+ssh://, qemu+tls:// or qemu+tcp://");
      }
      return unixEndpoint(url, parameters);
    case "qemu+unix":
    case "test+unix":
      return unixEndpoint(url, parameters);
    case "qemu+ssh":
      return { kind: "ssh", user: readUser(url.username), ...authority(url), ...parameters };
    case "qemu+tls":
      return networkEndpoint("tls", url, parameters, TLS_PORT);
    default:
      return networkEndpoint("tcp", url, parameters, TCP_PORT);
  }
}

function unixEndpoint(url: URL, parameters: Parameters): LibvirtEndpoint {
  if (url.hostname !== "" || url.username !== "" || url.port !== "") {
    throw new UriError("a local socket has no host, user or port: write three slashes, as in qemu:///system");
  }
  return { kind: "unix", ...parameters };
}

function networkEndpoint(
  kind: "tls" | "tcp",
  url: URL,
  parameters: Parameters,
  defaultPort: number,
): LibvirtEndpoint {
  if (url.username !== "") throw new UriError(`a user name has no meaning over ${kind}`);
  if (parameters.socket !== null || parameters.mode !== "auto") {
    throw new UriError(`'socket' and 'mode' have no meaning over ${kind}`);
  }
  const { host, port } = authority(url);
  return { kind, host, port: port ?? defaultPort };
}

function readUser(text: string): string | null {
  if (text === "") return null;
  if (!USER.test(text)) throw new UriError("the user name may hold letters, digits and . _ - only");
  return text;
}

/** Host without brackets, and port. A host never begins with '-': it becomes an argument of ssh. */
function authority(url: URL): { readonly host: string; readonly port: number | null } {
  const bracketed = /^\[(.*)\]$/.exec(url.hostname)?.[1];
  const host = (bracketed ?? url.hostname).toLowerCase();
  if (host === "") throw new UriError("the host is missing: qemu+ssh://root@host/system");
  const wellFormed = bracketed === undefined ? HOST_NAME.test(host) && host.length <= 253 : IPV6.test(host);
  if (!wellFormed)
    throw new UriError("the host must be a DNS name, an IPv4 address or an IPv6 address in brackets");
  if (url.port === "0") throw new UriError("port 0 cannot be connected to");
  return { host, port: url.port === "" ? null : Number(url.port) };
}

function canonicalUri(open: LibvirtUri["open"], endpoint: LibvirtEndpoint): string {
  const [driver, path] = open === "qemu:///system" ? ["qemu", "/system"] : ["test", "/default"];
  if (endpoint.kind === "unix") {
    const transport = driver === "qemu" && endpoint.socket === null ? "" : "+unix";
    return `${driver}${transport}://${path}${query(endpoint)}`;
  }
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  if (endpoint.kind === "ssh") {
    const user = endpoint.user === null ? "" : `${endpoint.user}@`;
    const port = endpoint.port === null || endpoint.port === 22 ? "" : `:${endpoint.port}`;
    return `${driver}+ssh://${user}${host}${port}${path}${query(endpoint)}`;
  }
  const isDefault = endpoint.port === (endpoint.kind === "tls" ? TLS_PORT : TCP_PORT);
  return `${driver}+${endpoint.kind}://${host}${isDefault ? "" : `:${endpoint.port}`}${path}`;
}

function query(parameters: Parameters): string {
  const parts: string[] = [];
  if (parameters.mode !== "auto") parts.push(`mode=${parameters.mode}`);
  if (parameters.socket !== null) parts.push(`socket=${parameters.socket}`);
  return parts.length === 0 ? "" : `?${parts.join("&")}`;
}

import type { Duplex } from "node:stream";
import { toError } from "./calls.ts";
import { type ConnectionSettings, LibvirtConnection } from "./connection.ts";
import { ConnectionError, LibvirtError } from "./errors.ts";
import type { ConnectOptions } from "./options.ts";
import { authList, authPolkit, connectOpen } from "./procedures/connect.ts";
import { dial } from "./transports/dial.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const CALL_TIMEOUT_MS = 30_000;
const MAX_CALLS_IN_FLIGHT = 4;
const KEEPALIVE = { intervalMs: 5_000, count: 3 };

/** remote_auth_type of the protocol. */
const AUTH_NONE = 0;
const AUTH_POLKIT = 2;

function settingsFrom(options: ConnectOptions): ConnectionSettings {
  return {
    callTimeoutMs: options.callTimeoutMs ?? CALL_TIMEOUT_MS,
    maxCallsInFlight: options.maxCallsInFlight ?? MAX_CALLS_IN_FLIGHT,
    keepalive: options.keepalive ?? KEEPALIVE,
  };
}

async function authenticate(connection: LibvirtConnection, signal: AbortSignal): Promise<void> {
  const { types } = await connection.call(authList, undefined, { signal });
  if (types.length === 0 || types.includes(AUTH_NONE)) return;
  if (!types.includes(AUTH_POLKIT)) {
    const message = `the daemon wants an authentication we do not have (types ${types.join(", ")}; 1 is SASL): set auth_… = "none" for this transport in libvirtd.conf, or use another transport`;
    throw new ConnectionError("auth", message);
  }
  try {
    await connection.call(authPolkit, undefined, { signal });
  } catch (error) {
    if (!(error instanceof LibvirtError)) throw error;
    throw new ConnectionError("auth", `polkit on the host refused us: ${error.message}`, { cause: error });
  }
}

async function open(
  socket: Duplex,
  options: ConnectOptions,
  signal: AbortSignal,
): Promise<LibvirtConnection> {
  const connection = new LibvirtConnection(socket, settingsFrom(options));
  try {
    await authenticate(connection, signal);
    await connection.call(connectOpen, { name: options.uri, flags: 0 }, { signal });
    return connection;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/**
 * Connects to a daemon, authenticates and opens its URI. Rejects with ConnectionError (what stood in
 * the way is its `kind`), LibvirtError when the daemon cannot open the URI, or the signal's reason.
 */
export async function connectLibvirt(options: ConnectOptions): Promise<LibvirtConnection> {
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  const deadline = new AbortController();
  const timer = setTimeout(() => {
    deadline.abort(new ConnectionError("timeout", `the daemon did not answer within ${timeoutMs} ms`));
  }, timeoutMs);
  const signal =
    options.signal === undefined ? deadline.signal : AbortSignal.any([options.signal, deadline.signal]);
  try {
    if (signal.aborted) throw toError(signal.reason);
    const socket = await dial(options.transport, options.uri, signal);
    return await open(socket, options, signal);
  } finally {
    clearTimeout(timer);
  }
}

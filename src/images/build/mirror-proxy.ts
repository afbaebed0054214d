import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { DroverError, messageOf } from "../../lib/errors.ts";
import type { ImportAllowList } from "../address-guard.ts";
import { checkedAddresses, openDownload, type Resolve } from "../image-download.ts";

/**
 * A proxy on the loopback through which apt fetches from a mirror that a client named. apt resolves names and follows
 * redirects by itself, so without it a mirror's owner could lead it to what only this machine can reach. Here every
 * address is checked, as for imports.
 */
export interface MirrorProxy {
  /** Variables that make apt use it. */
  readonly env: Readonly<Record<string, string>>;
  /** The first refusal of an address, or null: what apt prints of it is less clear. */
  refusal(): DroverError | null;
  close(): Promise<void>;
}

export interface GuardOptions {
  readonly allow: ImportAllowList;
  /** How names are resolved; the system's way without. */
  readonly resolve?: Resolve;
}

/** Starts it; it ends with `close`, or when the signal aborts. */
export async function startMirrorProxy(guard: GuardOptions, signal: AbortSignal): Promise<MirrorProxy> {
  const secret = randomBytes(16).toString("hex");
  const expected = `Basic ${Buffer.from(`drover:${secret}`).toString("base64")}`;
  let refused: DroverError | null = null;
  const note = (error: unknown): void => {
    if (error instanceof DroverError && error.code === "address_forbidden") refused ??= error;
  };
  const server = createServer((request, response) => {
    if (!isOurs(request, expected)) response.writeHead(407).end();
    else void forward(guard, signal, request, response).catch(note);
  });
  const tunnels = new Set<Socket>();
  server.on("connect", (request: IncomingMessage, socket: Socket) => {
    tunnels.add(socket);
    socket.once("close", () => tunnels.delete(socket));
    socket.on("error", () => socket.destroy());
    if (!isOurs(request, expected)) socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    else
      void tunnel(guard, signal, request, socket).catch((error: unknown) => {
        note(error);
        socket.end(`HTTP/1.1 403 Forbidden\r\nX-Reason: ${oneLine(messageOf(error))}\r\n\r\n`);
      });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const url = `http://drover:${secret}@127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    env: { http_proxy: url, https_proxy: url },
    refusal: () => refused,
    async close() {
      for (const socket of tunnels) socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function isOurs({ headers }: IncomingMessage, expected: string): boolean {
  const given = Buffer.from(headers["proxy-authorization"] ?? "");
  return given.length === expected.length && timingSafeEqual(given, Buffer.from(expected));
}

/** Answers with what the mirror has. apt checks all of it by Debian's signatures, so https may redirect to http. */
async function forward(
  guard: GuardOptions,
  signal: AbortSignal,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET") {
    response.writeHead(405).end();
    return;
  }
  try {
    const download = await openDownload(request.url ?? "", { ...guard, signal, digestKnown: true });
    try {
      const { sizeBytes } = download;
      response.writeHead(200, sizeBytes === null ? {} : { "content-length": sizeBytes });
      await pipeline(download.content, response);
    } finally {
      download.close();
    }
  } catch (error) {
    if (response.headersSent) response.destroy();
    else response.writeHead(statusFor(error), oneLine(messageOf(error))).end();
    throw error;
  }
}

function statusFor(error: unknown): number {
  if (!(error instanceof DroverError)) return 502;
  if (error.code === "address_forbidden") return 403;
  const status = error.details?.["status"];
  return typeof status === "number" && status >= 400 ? status : 502;
}

/** Connects apt with a checked address of the host that it asks for; what they say to each other is encrypted. */
async function tunnel(
  guard: GuardOptions,
  signal: AbortSignal,
  { url = "" }: IncomingMessage,
  socket: Socket,
): Promise<void> {
  const target = new URL(`https://${url}/`);
  const [address] = await checkedAddresses(target, { ...guard, signal, digestKnown: true });
  if (address === undefined) throw new Error("the host has no address");
  const far = connect({
    host: address.address,
    port: target.port === "" ? 443 : Number(target.port),
    signal,
  });
  await new Promise<void>((resolve, reject) => {
    far.once("error", reject);
    far.once("connect", resolve);
  });
  socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
  far.on("error", () => socket.destroy());
  far.once("close", () => socket.destroy());
  socket.once("close", () => far.destroy());
  socket.pipe(far);
  far.pipe(socket);
}

/** A status message holds neither line ends nor letters beyond Latin-1. */
function oneLine(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]+/g, " ").slice(0, 300);
}

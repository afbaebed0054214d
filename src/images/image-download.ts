import { lookup as resolveHost } from "node:dns/promises";
import http from "node:http";
import https from "node:https";
import type { LookupFunction } from "node:net";
import { isIP } from "node:net";
import { DroverError, type DroverErrorOptions, messageOf } from "../lib/errors.ts";
import { type ImportAllowList, refusalOfAddress } from "./address-guard.ts";
import { displayUrl, hostOf, parseImportUrl, refusalOfHost } from "./import-url.ts";

/**
 * Fetches a URL that a client named, without letting the client reach what only this machine can reach: names are
 * resolved here, every address is checked, and the connection goes to a checked address, whatever the name resolves
 * to a moment later. Redirects are followed by hand and checked the same way.
 */

export interface ResolvedAddress {
  readonly address: string;
  readonly family: 4 | 6;
}

export type Resolve = (host: string) => Promise<readonly ResolvedAddress[]>;

export interface DownloadOptions {
  readonly allow: ImportAllowList;
  readonly signal: AbortSignal;
  readonly resolve?: Resolve;
  /** From a request to the headers of its answer; 30 without. */
  readonly answerTimeoutSeconds?: number;
  /** Between two parts of the content; 60 without. */
  readonly idleTimeoutSeconds?: number;
  /** The content is checked by its digest, so it may come over an unprotected connection in the end. */
  readonly digestKnown: boolean;
}

export interface Download {
  /** What the server announced, in bytes; null when it did not. */
  readonly sizeBytes: number | null;
  readonly content: AsyncIterable<Uint8Array>;
  /** Ends the connection; needed whether the content was read or not. */
  close(): void;
}

const MAX_REDIRECTS = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Refusals that may be over soon: request time-out, too early, too many requests. */
const TEMPORARY_REFUSALS = new Set([408, 425, 429]);

/**
 * Opens the download. @throws {DroverError} `address_forbidden`, `download_failed` (with `retry: "never"` where the
 * same request would be refused again); the signal's reason.
 */
export async function openDownload(text: string, options: DownloadOptions): Promise<Download> {
  let url = requireUrl(text);
  for (let redirects = 0; ; redirects++) {
    options.signal.throwIfAborted();
    const response = await request(url, options);
    const status = response.statusCode ?? 0;
    if (!REDIRECTS.has(status)) return accept(url, status, response, options);
    response.destroy();
    if (redirects === MAX_REDIRECTS)
      throw failed(url, `it redirects more than ${MAX_REDIRECTS} times`, "never");
    url = redirectTarget(url, response.headers.location, options);
  }
}

function requireUrl(text: string, base?: URL): URL {
  const parsed = parseImportUrl(text, base);
  if (parsed.ok) return parsed.url;
  throw new DroverError("download_failed", `The image cannot be fetched: its URL ${parsed.reason}.`, {
    retry: "never",
  });
}

function redirectTarget(from: URL, location: string | undefined, { digestKnown }: DownloadOptions): URL {
  if (location === undefined) throw failed(from, "it redirects without saying where to", "never");
  const target = requireUrl(location, from);
  if (from.protocol === "https:" && target.protocol === "http:" && !digestKnown) {
    throw failed(from, "it redirects from https to http; give the image's sha256 to allow that", "never");
  }
  return target;
}

/** Sends one request to a checked address and waits for the headers of the answer. */
async function request(url: URL, options: DownloadOptions): Promise<http.IncomingMessage> {
  const addresses = await checkedAddresses(url, options);
  const { signal, answerTimeoutSeconds = 30 } = options;
  const client = url.protocol === "https:" ? https : http;
  return new Promise((resolve, reject) => {
    // `agent: false` makes a connection of its own, past any pool and any proxy of the environment.
    const sent = client.request(url, {
      agent: false,
      lookup: pinnedLookup(addresses),
      signal,
      // What is stored is what the digest is of, so nobody may pack it on the way.
      headers: { "user-agent": "drover", accept: "*/*", "accept-encoding": "identity" },
    });
    const timer = setTimeout(() => {
      sent.destroy(failed(url, `the server did not answer within ${answerTimeoutSeconds} seconds`));
    }, answerTimeoutSeconds * 1000);
    sent.once("response", (response) => {
      clearTimeout(timer);
      resolve(response);
    });
    sent.on("error", (error) => {
      clearTimeout(timer);
      reject(signal.aborted ? abortReason(signal) : asDownloadError(url, error));
    });
    sent.end();
  });
}

function accept(
  url: URL,
  status: number,
  response: http.IncomingMessage,
  options: DownloadOptions,
): Download {
  const refuse = (why: string, retry: "never" | "temporary") => {
    response.destroy();
    return failed(url, why, retry, { details: { status } });
  };
  if (status !== 200) {
    throw refuse(
      `the server answered ${status}`,
      status >= 500 || TEMPORARY_REFUSALS.has(status) ? "temporary" : "never",
    );
  }
  const encoding = response.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw refuse(`the server sends it packed with ${encoding}, unasked`, "never");
  const announced = response.headers["content-length"];
  return {
    sizeBytes: announced === undefined ? null : Number(announced),
    content: contentOf(url, response, options),
    close: () => response.destroy(),
  };
}

/** The body's parts, with our own errors; an answer that stops short of its announced length is one. */
async function* contentOf(
  url: URL,
  response: http.IncomingMessage,
  { signal, idleTimeoutSeconds = 60 }: DownloadOptions,
): AsyncGenerator<Uint8Array> {
  response.setTimeout(idleTimeoutSeconds * 1000, () => {
    response.destroy(failed(url, `the server sent nothing for ${idleTimeoutSeconds} seconds`));
  });
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    throw signal.aborted ? abortReason(signal) : asDownloadError(url, error);
  }
}

/** All addresses of the URL's host. One that is forbidden forbids them all: the name is not to be trusted. */
export async function checkedAddresses(
  url: URL,
  options: DownloadOptions,
): Promise<readonly ResolvedAddress[]> {
  const { allow, resolve = resolveByService } = options;
  const host = hostOf(url);
  const refusal = refusalOfHost(url, allow);
  if (refusal !== null) throw forbidden(url, `${host} is ${refusal}`);
  const family = isIP(host);
  if (family === 4 || family === 6) return [{ address: host, family }];
  const addresses = await resolve(host).catch((error: unknown) => {
    throw failed(url, `the name ${host} does not resolve (${messageOf(error)})`, "temporary", {
      cause: error,
    });
  });
  if (addresses.length === 0) throw failed(url, `the name ${host} has no address`);
  if (allow.hosts.has(host.toLowerCase())) return addresses;
  for (const { address } of addresses) {
    const reason = refusalOfAddress(address, allow.prefixes);
    if (reason !== null) throw forbidden(url, `${host} resolves to ${address}, which is ${reason}`);
  }
  return addresses;
}

async function resolveByService(host: string): Promise<readonly ResolvedAddress[]> {
  const found = await resolveHost(host, { all: true, order: "verbatim" });
  return found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 }));
}

/** Answers every look-up of the connection with the addresses that were checked. */
function pinnedLookup(addresses: readonly ResolvedAddress[]): LookupFunction {
  return (_host, lookupOptions, callback) => {
    if (lookupOptions.all === true) {
      callback(null, [...addresses]);
      return;
    }
    const [first] = addresses;
    if (first === undefined) callback(new Error("no address"), "", 0);
    else callback(null, first.address, first.family);
  };
}

function forbidden(url: URL, why: string): DroverError {
  return new DroverError(
    "address_forbidden",
    `${displayUrl(url)} may not be fetched: ${why}. Upload the image instead, or ask the operator to allow the address ` +
      "with DROVER_IMAGE_IMPORT_ALLOW.",
  );
}

function failed(
  url: URL,
  why: string,
  retry: "never" | "temporary" = "temporary",
  more: Pick<DroverErrorOptions, "cause" | "details"> = {},
): DroverError {
  const message = `${displayUrl(url)} could not be fetched: ${why}.`;
  return new DroverError("download_failed", message, { retry, ...more });
}

function asDownloadError(url: URL, error: unknown): DroverError {
  return error instanceof DroverError
    ? error
    : failed(url, `the connection failed (${messageOf(error)})`, "temporary", { cause: error });
}

function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new Error("aborted", { cause: reason });
}

import { isIP } from "node:net";
import { type ImportAllowList, refusalOfAddress } from "./address-guard.ts";

/** Which URLs an image may be imported from. Pure: what a name resolves to is checked when it is resolved. */

const MAX_URL_LENGTH = 2048;

/** A URL that may be tried, or a phrase that says what is wrong with it. */
export type ImportUrl =
  | { readonly ok: true; readonly url: URL }
  | { readonly ok: false; readonly reason: string };

/** Reads the URL of an import, absolute or (in a redirect) relative to `base`. */
export function parseImportUrl(text: string, base?: URL): ImportUrl {
  if (text.length > MAX_URL_LENGTH) return refuse(`must be at most ${MAX_URL_LENGTH} characters long`);
  const url = URL.parse(text, base?.href);
  if (url === null) return refuse("must be an absolute URL such as https://example.org/disk.qcow2");
  if (url.protocol !== "https:" && url.protocol !== "http:")
    return refuse("must begin with https:// or http://");
  if (url.username !== "" || url.password !== "") return refuse("must not hold a user name or password");
  url.hash = "";
  return { ok: true, url };
}

/** The host of a URL as it is resolved: without the brackets of an IPv6 address and without a final dot. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
}

/** Why a host that is written as an address must not be connected to; null for a public one, and for a name. */
export function refusalOfHost(url: URL, allow: ImportAllowList): string | null {
  const host = hostOf(url);
  return isIP(host) === 0 ? null : refusalOfAddress(host, allow.prefixes);
}

/** The URL as it is shown and kept: a query often is a signature that grants access. */
export function displayUrl(url: URL): string {
  return `${url.origin}${url.pathname}`;
}

function refuse(reason: string): ImportUrl {
  return { ok: false, reason };
}

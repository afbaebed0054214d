import { isIP, isIPv6 } from "node:net";

/**
 * Which addresses the service may connect to on a client's behalf. Without a guard, an image's URL would be a way
 * to reach whatever the service's machine can reach: its own ports, the management network, a cloud's metadata.
 * Pure: addresses in, verdict out.
 */

/** An address as a number, with its family: what prefixes are compared on. */
export interface Address {
  readonly family: 4 | 6;
  readonly value: bigint;
}

export interface Prefix {
  readonly family: 4 | 6;
  readonly value: bigint;
  readonly length: number;
}

/** What an operator allows beyond public addresses. */
export interface ImportAllowList {
  readonly prefixes: readonly Prefix[];
  /** Host names in lower case: all their addresses are allowed. */
  readonly hosts: ReadonlySet<string>;
}

// IANA's IPv4 special-purpose registry, and multicast.
const FORBIDDEN_V4: readonly (readonly [string, string])[] = [
  ["0.0.0.0/8", "an unspecified address"],
  ["10.0.0.0/8", "a private address"],
  ["100.64.0.0/10", "an address behind a carrier's NAT"],
  ["127.0.0.0/8", "a loopback address"],
  ["169.254.0.0/16", "a link-local address, where clouds keep their metadata"],
  ["172.16.0.0/12", "a private address"],
  ["192.0.0.0/24", "a reserved address"],
  ["192.0.2.0/24", "a documentation address"],
  ["192.88.99.0/24", "a 6to4 relay address"],
  ["192.168.0.0/16", "a private address"],
  ["198.18.0.0/15", "a benchmark address"],
  ["198.51.100.0/24", "a documentation address"],
  ["203.0.113.0/24", "a documentation address"],
  ["224.0.0.0/4", "a multicast address"],
  ["240.0.0.0/4", "a reserved address"],
];

// Of IPv6 only global unicast (2000::/3) is public, less what IANA's special-purpose registry takes from it.
const FORBIDDEN_V6: readonly (readonly [string, string])[] = [
  ["::/128", "an unspecified address"],
  ["::1/128", "a loopback address"],
  ["fe80::/10", "a link-local address"],
  ["fc00::/7", "a unique local address"],
  ["ff00::/8", "a multicast address"],
  ["2001::/23", "a protocol's own address, such as Teredo's"],
  ["2001:db8::/32", "a documentation address"],
  ["2002::/16", "a 6to4 address"],
  ["3fff::/20", "a documentation address"],
  ["64:ff9b:1::/48", "a local NAT64 address"],
];
const GLOBAL_UNICAST = prefixOf("2000::/3");

/** Addresses that stand for an IPv4 address in their last 32 bits: IPv4-mapped (RFC 4291) and NAT64 (RFC 6052). */
const EMBEDDING_V4 = [prefixOf("::ffff:0:0/96"), prefixOf("64:ff9b::/96")];

const FORBIDDEN = [...FORBIDDEN_V4, ...FORBIDDEN_V6].map(([text, reason]) => ({
  prefix: prefixOf(text),
  reason,
}));

/**
 * Says why a service must not connect to this address, such as `a private address`; null when it is public or
 * allowed. An address that cannot be read is forbidden.
 */
export function refusalOfAddress(text: string, allowed: readonly Prefix[] = []): string | null {
  const address = parseAddress(text);
  if (address === null) return "no address that can be read";
  return refusal(address, allowed);
}

function refusal(address: Address, allowed: readonly Prefix[]): string | null {
  if (allowed.some((prefix) => contains(prefix, address))) return null;
  if (EMBEDDING_V4.some((prefix) => contains(prefix, address))) {
    return refusal({ family: 4, value: address.value & 0xff_ff_ff_ffn }, allowed);
  }
  const forbidden = FORBIDDEN.find(({ prefix }) => contains(prefix, address));
  if (forbidden !== undefined) return forbidden.reason;
  if (address.family === 6 && !contains(GLOBAL_UNICAST, address)) return "a reserved address";
  return null;
}

/**
 * Reads the operator's list: CIDR prefixes, addresses and host names.
 * @throws {TypeError} naming the entry that is none of them.
 */
export function parseImportAllowList(entries: readonly string[]): ImportAllowList {
  const prefixes: Prefix[] = [];
  const hosts = new Set<string>();
  for (const entry of entries) {
    const prefix = parsePrefix(entry);
    if (prefix !== null) prefixes.push(prefix);
    else if (isHostName(entry)) hosts.add(entry.toLowerCase());
    else
      throw new TypeError(
        `"${entry}" is neither an address, nor a prefix such as 10.0.0.0/8, nor a host name`,
      );
  }
  return { prefixes, hosts };
}

/** Letters, digits, hyphens and dots, with a letter in its last part: what is all digits was meant as an address. */
function isHostName(text: string): boolean {
  return /^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(text);
}

/** Reads `10.0.0.0/8`, `fd00::/8` or a single address; null when it is none. Bits below the prefix are ignored. */
export function parsePrefix(text: string): Prefix | null {
  const [addressText = "", lengthText, ...rest] = text.split("/");
  const address = parseAddress(addressText);
  if (address === null || rest.length > 0) return null;
  const width = address.family === 4 ? 32 : 128;
  if (lengthText === undefined) return { ...address, length: width };
  if (!/^\d{1,3}$/.test(lengthText) || Number(lengthText) > width) return null;
  return { ...address, length: Number(lengthText) };
}

function prefixOf(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === null) throw new TypeError(`not a prefix: ${text}`);
  return prefix;
}

function contains(prefix: Prefix, address: Address): boolean {
  if (prefix.family !== address.family) return false;
  const shift = BigInt((address.family === 4 ? 32 : 128) - prefix.length);
  return address.value >> shift === prefix.value >> shift;
}

/** Reads an address in any of its usual spellings, a zone left out; null when it is none. */
export function parseAddress(text: string): Address | null {
  const [bare = ""] = text.split("%");
  switch (isIP(bare)) {
    case 4:
      return { family: 4, value: parseIpv4(bare) };
    case 6:
      return { family: 6, value: parseIpv6(bare) };
    default:
      return null;
  }
}

function parseIpv4(text: string): bigint {
  return text.split(".").reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

/** Takes only what `isIPv6` accepted. */
function parseIpv6(text: string): bigint {
  if (!isIPv6(text)) throw new TypeError(`not an IPv6 address: ${text}`);
  const [left = "", right] = text.split("::");
  const head = groupsOf(left);
  if (right === undefined) return joinGroups(head);
  const tail = groupsOf(right);
  const gap = Array.from({ length: 8 - head.length - tail.length }, () => 0n);
  return joinGroups([...head, ...gap, ...tail]);
}

function groupsOf(text: string): bigint[] {
  if (text === "") return [];
  return text.split(":").flatMap((group) => {
    if (!group.includes(".")) return [BigInt(`0x${group}`)];
    const embedded = parseIpv4(group);
    return [embedded >> 16n, embedded & 0xff_ffn];
  });
}

function joinGroups(groups: readonly bigint[]): bigint {
  return groups.reduce((value, group) => (value << 16n) | group, 0n);
}

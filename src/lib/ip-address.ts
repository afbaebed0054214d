/** IP addresses and subnets as numbers: text in, numbers out and back. Pure. */

export type IpFamily = "ipv4" | "ipv6";

/** A subnet by its first address and the length of its prefix. */
export interface Subnet {
  readonly family: IpFamily;
  readonly first: bigint;
  readonly prefix: number;
}

const BITS = { ipv4: 32, ipv6: 128 } as const;

/** Four decimal bytes without leading zeros, as nobody misreads them; null for anything else. */
export function parseIpv4(text: string): bigint | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let value = 0n;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null;
    value = value * 256n + BigInt(part);
  }
  return value;
}

export function formatIpv4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 255n)).join(".");
}

const GROUP = /^[0-9a-f]{1,4}$/i;
const GROUPS = 8;

/** Groups of hexadecimal digits, `::` at most once; no dotted end and no zone. Null for anything else. */
export function parseIpv6(text: string): bigint | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const given = head.length + tail.length;
  if (halves.length === 2 ? given >= GROUPS : given !== GROUPS) return null;
  const groups = [...head, ...Array.from({ length: GROUPS - given }, () => "0"), ...tail];
  if (!groups.every((group) => GROUP.test(group))) return null;
  return groups.reduce((value, group) => value * 65_536n + BigInt(`0x${group}`), 0n);
}

/** As RFC 5952 wants it: lower case, no leading zeros, the longest run of zeros left out. */
export function formatIpv6(value: bigint): string {
  const groups = Array.from({ length: GROUPS }, (_, index) =>
    ((value >> BigInt(16 * (GROUPS - 1 - index))) & 65_535n).toString(16),
  );
  const { start, length } = longestZeros(groups);
  if (length < 2) return groups.join(":");
  return `${groups.slice(0, start).join(":")}::${groups.slice(start + length).join(":")}`;
}

function longestZeros(groups: readonly string[]): { readonly start: number; readonly length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === "0") length++;
    if (length > best.length) best = { start, length };
  }
  return best;
}

export function parseIp(text: string): { readonly family: IpFamily; readonly value: bigint } | null {
  const ipv4 = parseIpv4(text);
  if (ipv4 !== null) return { family: "ipv4", value: ipv4 };
  const ipv6 = parseIpv6(text);
  return ipv6 === null ? null : { family: "ipv6", value: ipv6 };
}

export function formatIp(family: IpFamily, value: bigint): string {
  return family === "ipv4" ? formatIpv4(value) : formatIpv6(value);
}

/** `10.0.0.0/24`: null for what is no subnet, also where the address is one inside it. */
export function parseSubnet(text: string): Subnet | null {
  const [address = "", length, ...more] = text.split("/");
  const parsed = parseIp(address);
  if (parsed === null || length === undefined || more.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(length))
    return null;
  const prefix = Number(length);
  if (prefix > BITS[parsed.family]) return null;
  const subnet = { family: parsed.family, first: parsed.value, prefix };
  return parsed.value % sizeOf(subnet) === 0n ? subnet : null;
}

/** How many addresses a subnet has, the first and the last included. */
function sizeOf({ family, prefix }: Pick<Subnet, "family" | "prefix">): bigint {
  return 1n << BigInt(BITS[family] - prefix);
}

export function lastOf(subnet: Subnet): bigint {
  return subnet.first + sizeOf(subnet) - 1n;
}

/**
 * The address that a guest gives itself in a /64 from its MAC address (RFC 4291, appendix A): what a router's
 * advertisement leads to on hosts without privacy extensions.
 */
export function eui64Address(subnet: Subnet, macAddress: string): bigint {
  const mac = BigInt(`0x${macAddress.replaceAll(":", "")}`);
  const id = ((mac >> 24n) << 40n) | (0xfffen << 24n) | (mac & 0xff_ffffn);
  return subnet.first + (id ^ (1n << 57n));
}

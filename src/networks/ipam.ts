import { lastOf, parseIpv4, parseSubnet, type Subnet } from "../lib/ip-address.ts";
import type { NetworkIpv4 } from "./network-record.ts";

/** Which address a NIC gets. Pure: the caller holds the network's row while it asks and writes. */

/** Both ends included. */
export interface AddressRange {
  readonly first: bigint;
  readonly last: bigint;
}

/** The first address of the range that is not taken; null when all are. `taken` need not be in order. */
export function firstFree({ first, last }: AddressRange, taken: readonly bigint[]): bigint | null {
  const used = new Set(taken);
  for (let address = first; address <= last; address++) if (!used.has(address)) return address;
  return null;
}

/** The addresses of an IPv4 subnet that a machine can have: neither the subnet's own nor its broadcast. */
export function hostAddresses(subnet: Subnet): AddressRange {
  return { first: subnet.first + 1n, last: lastOf(subnet) - 1n };
}

export function isWithin({ first, last }: AddressRange, address: bigint): boolean {
  return first <= address && address <= last;
}

/** The pool of a network as numbers, and what of it is never given to a VM. */
export function poolOf({ cidr, gateway, range }: NetworkIpv4): {
  readonly hosts: AddressRange;
  readonly range: AddressRange;
  readonly reserved: readonly bigint[];
} {
  const subnet = parseSubnet(cidr);
  const first = parseIpv4(range.start);
  const last = parseIpv4(range.end);
  if (subnet === null || first === null || last === null)
    throw new Error(`the network ${cidr} has no addresses that can be read`);
  const router = gateway === null ? null : parseIpv4(gateway);
  return { hosts: hostAddresses(subnet), range: { first, last }, reserved: router === null ? [] : [router] };
}

import { parseIp } from "../../lib/ip-address.ts";
import {
  type Domain,
  domainInterfaceAddresses,
  type Network,
  networkGetDhcpLeases,
} from "../../libvirt-rpc/index.ts";
import { type Call, HypervisorError, type SeenAddress } from "../hypervisor.ts";
import type { HostCalls } from "./lanes.ts";

/** virDomainInterfaceAddressesSource: what the host itself has heard; the guest's agent is not asked, for it may hang. */
const ARP = 2;

/**
 * The IP addresses behind MAC addresses: what the host's networks leased, one call for each network, and what the host
 * learned by ARP from guests that run. A network or a domain that goes away meanwhile has none.
 */
export async function readAddresses(
  calls: HostCalls,
  { networks, domains }: { readonly networks: readonly Network[]; readonly domains: readonly Domain[] },
  call: Call,
): Promise<readonly SeenAddress[]> {
  const found = await Promise.all([
    ...networks.map((network) => leasesOf(calls, network, call)),
    ...domains.map((domain) => heardOf(calls, domain, call)),
  ]);
  // What others have in their networks may be of any kind: hardware addresses of InfiniBand, addresses with zones.
  return found
    .flat()
    .map((seen) => ({ ...seen, macAddress: seen.macAddress.toLowerCase() }))
    .filter(({ address, macAddress }) => parseIp(address) !== null && MAC_ADDRESS.test(macAddress));
}

const MAC_ADDRESS = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

async function leasesOf(calls: HostCalls, network: Network, call: Call): Promise<SeenAddress[]> {
  const args = { network, mac: null, flags: 0 };
  const answer = await orNone(calls.read(networkGetDhcpLeases, args, call));
  return (answer?.leases ?? []).flatMap(({ mac, ipAddr }): SeenAddress[] =>
    mac === null ? [] : [{ macAddress: mac, address: ipAddr, source: "lease" }],
  );
}

async function heardOf(calls: HostCalls, domain: Domain, call: Call): Promise<SeenAddress[]> {
  const answer = await orNone(calls.read(domainInterfaceAddresses, { domain, source: ARP, flags: 0 }, call));
  return (answer?.interfaces ?? []).flatMap(({ hwAddr, addrs }) =>
    hwAddr === null
      ? []
      : addrs.map(({ addr }): SeenAddress => ({ macAddress: hwAddr, address: addr, source: "arp" })),
  );
}

/**
 * A host that cannot tell addresses is a host all the same. `failed`: libvirt 9 does not understand what newer kernels
 * answer about their ARP table ("wrong nlmsg len").
 */
const TELLS_NOTHING: ReadonlySet<string> = new Set(["not-found", "invalid-state", "unsupported", "failed"]);

async function orNone<Result>(reading: Promise<Result>): Promise<Result | null> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof HypervisorError && TELLS_NOTHING.has(error.reason)) return null;
    throw error;
  }
}

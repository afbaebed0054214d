import type { NetworkSpec } from "../hypervisors/hypervisor.ts";
import type { InstallationId, NetworkId } from "../lib/ids.ts";
import { parseSubnet } from "../lib/ip-address.ts";
import type { NetworkRecord } from "./network-record.ts";

/** What a network is called on its hosts: readable there, and unique in the installation. Pure. */
export function networkNameOnHost({ id, name }: Pick<NetworkRecord, "id" | "name">): string {
  return `${name}-${endOf(id)}`;
}

/** Linux gives names of interfaces 15 bytes. */
function bridgeNameOf(id: NetworkId): string {
  return `dv${endOf(id)}`;
}

/** The last 12 hex digits of an id. */
function endOf(id: string): string {
  return id.slice(-12);
}

/** All that a driver needs to make the network on a host. */
export function networkSpecOf(network: NetworkRecord, installationId: InstallationId): NetworkSpec {
  const { id, kind, bridge, vlan, ipv4, ipv6 } = network;
  const common = { uuid: id, name: networkNameOnHost(network), installationId };
  if (kind === "bridged") {
    if (bridge === null) throw new Error(`the bridged network ${id} has no bridge`);
    return { ...common, forward: { kind, bridge, vlan }, ipv4: null, ipv6: null };
  }
  return {
    ...common,
    forward: { kind, newBridge: bridgeNameOf(id) },
    ipv4: interfaceAddress(ipv4),
    ipv6: interfaceAddress(ipv6),
  };
}

function interfaceAddress(own: { readonly cidr: string; readonly gateway: string | null } | null) {
  const subnet = own === null ? null : parseSubnet(own.cidr);
  if (own === null || subnet === null || own.gateway === null) return null;
  return { address: own.gateway, prefix: subnet.prefix };
}

/** Whether its hosts' DHCP, which is ours, gives the addresses that its VMs have. */
export function hasOwnDhcp({ kind, ipv4 }: Pick<NetworkRecord, "kind" | "ipv4">): boolean {
  return kind !== "bridged" && ipv4 !== null;
}

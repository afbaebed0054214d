import type { StaticLease } from "../hypervisor.ts";
import { NETWORK_MARK_ELEMENT, NETWORK_MARK_NAMESPACE } from "./ownership.ts";
import { findMark } from "./parse-mark.ts";
import { attribute, child, childrenNamed, parseXml, textAt, unreadable } from "./xml.ts";

/** What we take from a network's XML. */
export interface NetworkFacts {
  readonly name: string;
  readonly uuid: string | null;
  readonly bridge: string | null;
  /** libvirt's forward mode (`nat`, `route`, `open`, `bridge`, `hostdev` …), or `isolated` where it forwards nothing. */
  readonly mode: string;
}

/** Reads a network's XML. libvirt's own default of `<forward/>` without a mode is `nat`. */
export function parseNetwork(xml: string): NetworkFacts {
  const root = parseXml(xml, "network");
  const name = textAt(root, "name");
  if (name === undefined) throw unreadable("network", "it has no name");
  const forward = child(root, "forward");
  return {
    name,
    uuid: textAt(root, "uuid") ?? null,
    bridge: attribute(child(root, "bridge"), "name") ?? null,
    mode: forward === undefined ? "isolated" : (attribute(forward, "mode") ?? "nat"),
  };
}

/** What of a network decides whether and how we may change it. */
export interface NetworkOwnership {
  /** Whose it is by the mark that it carries; null: it carries none. */
  readonly installationId: string | null;
  /** Which MAC address gets which address by DHCP. */
  readonly leases: readonly StaticLease[];
}

/** Reads the mark and the DHCP hosts of a network's XML. Hosts without a MAC address are IPv6's, and none of ours. */
export function parseNetworkOwnership(xml: string): NetworkOwnership {
  const root = parseXml(xml, "network");
  const { installationId } = findMark(root, NETWORK_MARK_ELEMENT, NETWORK_MARK_NAMESPACE);
  const hosts = childrenNamed(root, "ip").flatMap((ip) => childrenNamed(child(ip, "dhcp"), "host"));
  const leases = hosts.flatMap((host) => {
    const macAddress = attribute(host, "mac");
    const ipv4Address = attribute(host, "ip");
    return macAddress === undefined || ipv4Address === undefined
      ? []
      : [{ macAddress: macAddress.toLowerCase(), ipv4Address }];
  });
  return { installationId, leases };
}

import { HypervisorError, type InterfaceAddress, type NetworkSpec, type StaticLease } from "../hypervisor.ts";
import { NETWORK_MARK_ELEMENT, NETWORK_MARK_NAMESPACE } from "./ownership.ts";
import { writeXml, XmlCharacterError, type XmlNode, xmlNode } from "./xml-writer.ts";

/**
 * Writes a network's XML. Pure: the same spec gives the same document. It has no DHCP range: each NIC has an address of
 * its own, which is added as a host, and nobody else gets one.
 * @throws HypervisorError `invalid-spec` for text that XML cannot hold
 */
export function networkXml(spec: NetworkSpec): string {
  return written(
    xmlNode("network", {}, [
      xmlNode("name", {}, spec.name),
      xmlNode("uuid", {}, spec.uuid),
      xmlNode("metadata", {}, [
        xmlNode(`drover:${NETWORK_MARK_ELEMENT}`, {
          "xmlns:drover": NETWORK_MARK_NAMESPACE,
          installation: spec.installationId,
          id: spec.uuid,
        }),
      ]),
      ...connection(spec),
      // IPv4 comes first: hosts are added to the first of them.
      ...addressOf(spec.ipv4, "ipv4"),
      ...addressOf(spec.ipv6, "ipv6"),
    ]),
  );
}

function connection({ forward, ipv6 }: NetworkSpec): readonly XmlNode[] {
  if (forward.kind === "bridged") {
    const tagged = [
      xmlNode("virtualport", { type: "openvswitch" }),
      xmlNode("vlan", {}, [xmlNode("tag", { id: String(forward.vlan) })]),
    ];
    return [
      xmlNode("forward", { mode: "bridge" }),
      xmlNode("bridge", { name: forward.bridge }),
      ...(forward.vlan === null ? [] : tagged),
    ];
  }
  const bridge = xmlNode("bridge", { name: forward.newBridge, stp: "off", delay: "0" });
  switch (forward.kind) {
    case "isolated":
      return [bridge];
    case "routed":
      return [xmlNode("forward", { mode: "route" }), bridge];
    case "nat":
      return [
        xmlNode("forward", { mode: "nat" }, ipv6 === null ? [] : [xmlNode("nat", { ipv6: "yes" })]),
        bridge,
      ];
  }
}

function addressOf(own: InterfaceAddress | null, family: "ipv4" | "ipv6"): readonly XmlNode[] {
  if (own === null) return [];
  return [xmlNode("ip", { family, address: own.address, prefix: String(own.prefix) })];
}

/** A host of a network's DHCP. */
export function leaseXml({ macAddress, ipv4Address }: StaticLease): string {
  return written(xmlNode("host", { mac: macAddress, ip: ipv4Address }));
}

function written(node: XmlNode): string {
  try {
    return writeXml(node);
  } catch (cause) {
    if (!(cause instanceof XmlCharacterError)) throw cause;
    throw new HypervisorError("invalid-spec", `the network is refused: ${cause.message}`, { cause });
  }
}

import { describe, expect, it } from "vitest";
import { HypervisorError, type NetworkSpec } from "../../../../src/hypervisors/hypervisor.ts";
import { leaseXml, networkXml } from "../../../../src/hypervisors/libvirt/network-xml.ts";
import { parseNetwork, parseNetworkOwnership } from "../../../../src/hypervisors/libvirt/parse-network.ts";
import { attribute, child } from "../../../../src/hypervisors/libvirt/xml.ts";
import { readXml } from "../../../../src/hypervisors/libvirt/xml-reader.ts";
import { asId, type InstallationId, type NetworkId } from "../../../../src/lib/ids.ts";

const spec: NetworkSpec = {
  uuid: asId<NetworkId>("0192aaaa-0000-7000-8000-00000000abcd"),
  name: "web-00000000abcd",
  installationId: asId<InstallationId>("0192aaaa-0000-7000-8000-000000000001"),
  forward: { kind: "nat", newBridge: "dv00000000abcd" },
  ipv4: { address: "10.20.0.1", prefix: 24 },
  ipv6: null,
};

describe("a network's XML", () => {
  it.each([
    ["nat", "nat"],
    ["routed", "route"],
    ["isolated", "isolated"],
  ] as const)("of kind %s has its bridge, its address and our mark", (kind, mode) => {
    const xml = networkXml({ ...spec, forward: { kind, newBridge: "dv00000000abcd" } });
    expect(parseNetwork(xml)).toEqual({ name: spec.name, uuid: spec.uuid, bridge: "dv00000000abcd", mode });
    expect(parseNetworkOwnership(xml)).toEqual({ installationId: spec.installationId, leases: [] });
    const ip = child(readXml(xml), "ip");
    expect([attribute(ip, "address"), attribute(ip, "prefix")]).toEqual(["10.20.0.1", "24"]);
  });

  it("has IPv4 first, and hides IPv6 behind the host only where it says so", () => {
    const both = { ...spec, ipv6: { address: "fd00:20::1", prefix: 64 } };
    const root = readXml(networkXml(both));
    const families = root.children.filter(({ name }) => name === "ip").map((ip) => attribute(ip, "family"));
    expect(families).toEqual(["ipv4", "ipv6"]);
    expect(attribute(child(root, "forward", "nat"), "ipv6")).toBe("yes");
    expect(child(readXml(networkXml(spec)), "forward", "nat")).toBeUndefined();
  });

  it("on a bridge that is there names it, and has a tag where one is asked for", () => {
    const bridged = (vlan: number | null) =>
      readXml(networkXml({ ...spec, forward: { kind: "bridged", bridge: "br0", vlan }, ipv4: null }));
    expect(attribute(child(bridged(null), "bridge"), "name")).toBe("br0");
    expect(child(bridged(null), "vlan")).toBeUndefined();
    expect(attribute(child(bridged(7), "vlan", "tag"), "id")).toBe("7");
    expect(attribute(child(bridged(7), "virtualport"), "type")).toBe("openvswitch");
  });

  it("escapes what it is given, and refuses what XML cannot hold", () => {
    const name = `a"<&>'`;
    expect(parseNetwork(networkXml({ ...spec, name })).name).toBe(name);
    expect(() => networkXml({ ...spec, name: "a\u0000" })).toThrow(HypervisorError);
  });
});

describe("a network's DHCP hosts", () => {
  it("are read by MAC address, and those of others by nothing", () => {
    const lease = { macAddress: "52:54:00:aa:bb:cc", ipv4Address: "10.20.0.7" };
    const host = leaseXml({ ...lease, macAddress: "52:54:00:AA:BB:CC" });
    const xml = `<network><name>n</name><ip address="10.20.0.1"><dhcp>${host}<host id="0:1" ip="fd00::7"/></dhcp></ip></network>`;
    expect(parseNetworkOwnership(xml)).toEqual({ installationId: null, leases: [lease] });
  });
});

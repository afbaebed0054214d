import { z } from "zod";
import { LabelSelector, Labels, LabelsPatch } from "../http/labels.ts";
import { orderByQuery, pageOf, pageQuery } from "../http/pagination.ts";
import { Id, Name, Timestamp } from "../http/schemas.ts";
import { parseIp, parseIpv4, parseSubnet } from "../lib/ip-address.ts";
import { hostAddresses, isWithin } from "./ipam.ts";
import { NETWORK_KINDS } from "./network-record.ts";

/** The API's shapes of a network. */

const IPV4_PREFIX = { least: 8, most: 30 } as const;
/** Guests make their own addresses in a subnet of this length, and of no other. */
const IPV6_PREFIX = 64;

export const Ipv4Address = z
  .string()
  .refine((text) => parseIpv4(text) !== null, "must be an IPv4 address such as 10.20.0.5")
  .meta({ examples: ["10.20.0.5"] });

const Ipv4Cidr = z
  .string()
  .refine((text) => {
    const subnet = parseSubnet(text);
    if (subnet?.family !== "ipv4") return false;
    return IPV4_PREFIX.least <= subnet.prefix && subnet.prefix <= IPV4_PREFIX.most;
  }, `must be an IPv4 subnet such as 10.20.0.0/24, of length ${IPV4_PREFIX.least} to ${IPV4_PREFIX.most}, without bits beyond it`)
  .meta({ examples: ["10.20.0.0/24"] });

const Ipv6Cidr = z
  .string()
  .refine((text) => {
    const subnet = parseSubnet(text);
    return subnet?.family === "ipv6" && subnet.prefix === IPV6_PREFIX;
  }, `must be an IPv6 subnet such as fd00:20::/${IPV6_PREFIX}, of length ${IPV6_PREFIX}, without bits beyond it`)
  .meta({ examples: ["fd00:20::/64"] });

const Range = z.strictObject({ start: Ipv4Address, end: Ipv4Address });

const NewIpv4 = z
  .strictObject({
    cidr: Ipv4Cidr,
    gateway: Ipv4Address.optional().meta({
      description:
        "The host's own address in it: the subnet's first without. For a bridge the router's, if there is one.",
    }),
    range: Range.optional().meta({
      description:
        "The addresses that VMs get: all of the subnet without. The gateway is never given to one.",
    }),
  })
  .superRefine(({ cidr, gateway, range }, context) => {
    const subnet = parseSubnet(cidr);
    if (subnet?.family !== "ipv4") return;
    const hosts = hostAddresses(subnet);
    const check = (text: string | undefined, path: string[]): bigint | null => {
      const value = text === undefined ? null : parseIpv4(text);
      if (value !== null && !isWithin(hosts, value))
        context.addIssue({ code: "custom", path, message: `must be a machine's address in ${cidr}` });
      return value;
    };
    check(gateway, ["gateway"]);
    const start = check(range?.start, ["range", "start"]);
    const end = check(range?.end, ["range", "end"]);
    if (start !== null && end !== null && end < start)
      context.addIssue({ code: "custom", path: ["range", "end"], message: "must not come before the start" });
  })
  .meta({ id: "NewNetworkIpv4" });

const NewIpv6 = z.strictObject({ cidr: Ipv6Cidr }).meta({
  id: "NewNetworkIpv6",
  description:
    "The host has the subnet's first address and announces the subnet; a guest's address follows from its MAC address.",
});

const KindName = z.enum(NETWORK_KINDS).meta({
  id: "NetworkKind",
  description:
    "`nat` reaches outside by the host's address; `routed` by its own, which the world around must route to the host; `isolated` stays among the VMs of one host; `bridged` is a bridge that the hosts have.",
});

/** Linux gives names of interfaces 15 bytes. */
const BridgeName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/, "must be the name of a bridge, at most 15 characters");
const Vlan = z.int().min(1).max(4094);

export const CreateNetworkBody = z
  .strictObject({
    name: Name,
    labels: Labels.default({}),
    kind: KindName,
    ipv4: NewIpv4.optional(),
    ipv6: NewIpv6.optional(),
    bridge: BridgeName.optional().meta({ description: "The hosts' bridge, for kind `bridged` alone." }),
    vlan: Vlan.optional().meta({
      description: "The tag on the bridge, for kind `bridged` alone; it must be an Open vSwitch bridge then.",
    }),
    hostLabels: Labels.optional().meta({
      description: "Labels that a host must have; without: every host may have it.",
    }),
  })
  .superRefine(({ kind, ipv4, ipv6, bridge, vlan }, context) => {
    const issue = (member: string, message: string) => {
      context.addIssue({ code: "custom", path: [member], message });
    };
    if (kind === "bridged") {
      if (bridge === undefined)
        issue("bridge", "a network of kind bridged needs the name of the hosts' bridge");
      if (ipv6 !== undefined) issue("ipv6", "a bridge's router announces its own IPv6 subnet");
      return;
    }
    if (bridge !== undefined) issue("bridge", "only a network of kind bridged has one");
    if (vlan !== undefined) issue("vlan", "only a network of kind bridged has one");
    if (kind !== "isolated" && ipv4 === undefined && ipv6 === undefined)
      issue("ipv4", `a network of kind ${kind} needs a subnet`);
  })
  .meta({
    id: "CreateNetworkBody",
    examples: [
      { name: "backend", kind: "nat", ipv4: { cidr: "10.20.0.0/24" } },
      { name: "office", kind: "bridged", bridge: "br0" },
    ],
  });
export type CreateNetwork = z.output<typeof CreateNetworkBody>;

export const PatchNetworkBody = z.strictObject({ labels: LabelsPatch.optional() }).meta({
  id: "PatchNetworkBody",
  description: "Only labels can be changed: VMs hang on the rest.",
});
export type PatchNetwork = z.output<typeof PatchNetworkBody>;

const IpAddressText = z.string().refine((text) => parseIp(text) !== null, "must be an IP address");

export const NetworkSchema = z
  .strictObject({
    id: Id,
    name: Name,
    project: z.string(),
    labels: Labels,
    generation: z.int().meta({ description: "Revision of the labels; the ETag." }),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    kind: KindName,
    ipv4: z
      .strictObject({ cidr: Ipv4Cidr, gateway: Ipv4Address.nullable(), range: Range })
      .nullable()
      .meta({ id: "NetworkIpv4" }),
    ipv6: z
      .strictObject({ cidr: Ipv6Cidr, gateway: IpAddressText.nullable() })
      .nullable()
      .meta({ id: "NetworkIpv6" }),
    bridge: BridgeName.nullable(),
    vlan: Vlan.nullable(),
    hostLabels: Labels.nullable(),
    state: z.enum(["ready", "deleting"]),
    hosts: z.array(Name).meta({ description: "Hosts that it was made on, or is about to be." }),
    addressesReserved: z.int().meta({ description: "Addresses that VMs have, whatever their power." }),
  })
  .meta({
    id: "Network",
    description: "A network of a project; on a host it is made with the first VM there.",
  });
export type Network = z.output<typeof NetworkSchema>;

export const NetworkPage = pageOf(NetworkSchema).meta({ id: "NetworkPage" });

export const listNetworksQuery = {
  ...pageQuery,
  name: Name.optional(),
  kind: KindName.optional(),
  labelSelector: LabelSelector.optional(),
  orderBy: orderByQuery(["name", "createdAt"], "name"),
};

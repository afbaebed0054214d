import type { HostId, NetworkId, ProjectId } from "../lib/ids.ts";

export const NETWORK_KINDS = ["nat", "isolated", "routed", "bridged"] as const;
export type NetworkKind = (typeof NETWORK_KINDS)[number];

/** A network of a project as the inventory holds it. */
export interface NetworkRecord {
  readonly id: NetworkId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly kind: NetworkKind;
  readonly state: "ready" | "deleting";
  readonly ipv4: NetworkIpv4 | null;
  readonly ipv6: NetworkIpv6 | null;
  /** The bridge that hosts have, for kind `bridged`. */
  readonly bridge: string | null;
  readonly vlan: number | null;
  /** What a host must carry for it; null: any host. */
  readonly hostLabels: Readonly<Record<string, string>> | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface NetworkIpv4 {
  readonly cidr: string;
  /** The host's own address in it, or of a bridge's router where one was told. */
  readonly gateway: string | null;
  /** Addresses that VMs get, both ends included. */
  readonly range: { readonly start: string; readonly end: string };
}

export interface NetworkIpv6 {
  readonly cidr: string;
  readonly gateway: string | null;
}

/** What hangs on a network, for its view. */
export interface NetworkUse {
  readonly hosts: readonly { readonly id: HostId; readonly name: string }[];
  readonly addresses: number;
}

import type { InstallationId, NetworkId } from "../lib/ids.ts";
import type { Call } from "./call.ts";

/** The part of the contract that is about networks. What carries another mark than ours rejects with `foreign`. */
export interface NetworkAbility {
  /**
   * Makes the network and brings it up, now and whenever the host starts. One of this UUID that is ours is left as it
   * is, and brought up where it is down. Another network of this name: `already-exists`.
   */
  ensureNetwork(spec: NetworkSpec, call: Call): Promise<void>;
  /** Takes the network down and makes the host forget it. None: fine. */
  removeNetwork(uuid: string, call: Call): Promise<void>;
  /** Null when the host has none of this UUID. */
  observeNetwork(uuid: string, call: Call): Promise<NetworkState | null>;
  /**
   * From now on the network gives this address to this MAC address, and to no other; what stood for either of them is
   * replaced. No such network: `not-found`.
   */
  reserveAddress(uuid: string, lease: StaticLease, call: Call): Promise<void>;
  /** Takes that back. No such network, or nothing for this MAC address: fine. */
  releaseAddress(uuid: string, macAddress: string, call: Call): Promise<void>;
}

/** All that a driver needs to make a network. Its name and bridge are unique in the installation. */
export interface NetworkSpec {
  readonly uuid: NetworkId;
  readonly name: string;
  readonly installationId: InstallationId;
  readonly forward:
    | { readonly kind: "nat" | "routed" | "isolated"; readonly newBridge: string }
    /** Upon a bridge that the host has; with a tag it is one of Open vSwitch. */
    | { readonly kind: "bridged"; readonly bridge: string; readonly vlan: number | null };
  /** The host's own addresses in it; null: it has none of that family. */
  readonly ipv4: InterfaceAddress | null;
  readonly ipv6: InterfaceAddress | null;
}

export interface InterfaceAddress {
  readonly address: string;
  readonly prefix: number;
}

/** Which address a MAC address gets by DHCP. */
export interface StaticLease {
  readonly macAddress: string;
  readonly ipv4Address: string;
}

export interface NetworkState {
  readonly active: boolean;
  readonly leases: readonly StaticLease[];
}

/** An IP address that was seen, and who told of it. */
export interface SeenAddress {
  readonly macAddress: string;
  readonly address: string;
  readonly source: "lease" | "agent" | "arp";
}

export interface DomainNic {
  readonly name: string;
  readonly network: string;
  readonly macAddress: string;
  /** What the guest may send by it, where the host can see to that; absent: anything. */
  readonly guard?: NicGuard | undefined;
}

/** By no MAC address but its own, and from no other addresses than these; none: from any. */
export interface NicGuard {
  readonly addresses: readonly string[];
}

/**
 * NICs of a guest that is on. What the domain is defined with is not touched: defineDomain says what it has at its next
 * start. One that is off: `invalid-state`.
 */
export interface NicAbility {
  /** Plugs it in. One of this MAC address is there already: fine. A network that the host does not have rejects. */
  attachNic(uuid: string, nic: DomainNic, call: Call): Promise<void>;
  /**
   * Takes it out, and returns when the guest has let it go; one that does not rejects with `busy`. None of this MAC
   * address: fine.
   */
  detachNic(uuid: string, nic: DomainNic, call: Call): Promise<void>;
  /** The MAC addresses that the guest has now. */
  listNics(uuid: string, call: Call): Promise<readonly string[]>;
}

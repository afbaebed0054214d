import type { HostTarget, NetworkAbility, ObservedNetwork } from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import { type NetworkRow, type NetworkValue, READ_NETWORK } from "./sim-reads-store.ts";

/** The networks that are made on a simulated host. */
export function simNetworkAbility(calls: SimCalls, { installationId }: HostTarget): NetworkAbility {
  return {
    async ensureNetwork(spec, call) {
      const args = [spec.uuid, spec.name, installationId, JSON.stringify(spec)];
      await calls.change("ensureNetwork", "ensure_network", args, call);
    },
    async removeNetwork(uuid, call) {
      await calls.change("removeNetwork", "remove_network", [uuid, installationId], call);
    },
    async observeNetwork(uuid, call) {
      const { network } = await calls.read<NetworkRow>("observeNetwork", READ_NETWORK, [uuid], call);
      return network === null ? null : { active: true, leases: network.leases };
    },
    async reserveAddress(uuid, { macAddress, ipv4Address }, call) {
      const args = [uuid, installationId, macAddress, ipv4Address];
      await calls.change("reserveAddress", "set_lease", args, call);
    },
    async releaseAddress(uuid, macAddress, call) {
      await calls.change("releaseAddress", "set_lease", [uuid, installationId, macAddress, null], call);
    },
  };
}

const MODES = { nat: "nat", routed: "route", isolated: "isolated", bridged: "bridge" } as const;

/** A network that was made, as an inventory shows it. */
export function observedNetworkOf({ name, uuid, definition: { forward } }: NetworkValue): ObservedNetwork {
  const bridge = forward.kind === "bridged" ? forward.bridge : forward.newBridge;
  return { name, uuid, active: true, bridge, mode: MODES[forward.kind] };
}

import {
  type HostTarget,
  HypervisorError,
  type NetworkAbility,
  type NicAbility,
  type ObservedNetwork,
} from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import {
  type NetworkRow,
  type NetworkValue,
  type NicsRow,
  READ_NETWORK,
  READ_NICS,
} from "./sim-reads-store.ts";

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

/** The NICs of guests that are on. */
export function simNicAbility(calls: SimCalls, { installationId }: HostTarget): NicAbility {
  return {
    async attachNic(uuid, { macAddress, network }, call) {
      const nic = JSON.stringify({ network, macAddress });
      await calls.change("attachNic", "set_live_nic", [uuid, installationId, macAddress, nic], call);
    },
    async detachNic(uuid, { macAddress }, call) {
      await calls.change("detachNic", "set_live_nic", [uuid, installationId, macAddress, null], call);
    },
    async listNics(uuid, call) {
      const { nics } = await calls.read<NicsRow>("listNics", READ_NICS, [uuid], call);
      if (nics === null) throw new HypervisorError("not-found", `the host has no domain ${uuid}`);
      if (nics.power === "running" || nics.power === "paused") return nics.macAddresses;
      throw new HypervisorError("invalid-state", `domain ${uuid} is ${nics.power}`);
    },
  };
}

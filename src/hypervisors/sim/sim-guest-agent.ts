import {
  type AgentState,
  type GuestAgentAbility,
  HypervisorError,
  type ObservedPower,
} from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import { type AgentRow, READ_AGENT } from "./sim-reads-store.ts";
import type { SimSettings } from "./sim-uri.ts";

/** The agent of a guest whose power is this: guests have one where the host's URI says so, and it never fails by itself. */
export function simAgentState({ guestAgents }: SimSettings, power: ObservedPower): AgentState {
  return guestAgents === 1 && (power === "running" || power === "paused") ? "connected" : "disconnected";
}

/** What a simulated guest knows of itself: its domain's name, and the addresses that it was leased. */
export function simGuestAgent(settings: SimSettings, calls: SimCalls): GuestAgentAbility {
  return {
    async askAgent(uuid, call) {
      const { guest } = await calls.read<AgentRow>("askAgent", READ_AGENT, [uuid], call);
      if (guest === null) throw new HypervisorError("not-found", `the host has no domain ${uuid}`);
      if (guest.power !== "running")
        throw new HypervisorError(
          "invalid-state",
          `domain ${guest.name} is ${guest.power}: it answers nothing`,
        );
      if (simAgentState(settings, guest.power) !== "connected")
        throw new HypervisorError("invalid-state", `no agent runs in the guest of domain ${guest.name}`);
      const { name: hostName, addresses } = guest;
      return { hostName, osName: "Simulated OS 1", kernelRelease: "sim-1", addresses };
    },
  };
}

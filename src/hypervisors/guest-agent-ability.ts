import type { Call } from "./call.ts";

/** Whether something in the guest has opened its end of the channel that an agent uses. It may be silent nevertheless. */
export type AgentState = "connected" | "disconnected";

/** The part of the contract that is about the agent in a guest. */
export interface GuestAgentAbility {
  /**
   * Asks the agent in a running guest. The answer is the guest's word: bounded and well-formed, and not to be trusted
   * beyond that. It holds up no other call, whatever the guest does, and is over within half a minute. An agent that does
   * not answer, or whose answer cannot be read: `timeout` or `failed`. A guest that does not run, or has no agent that
   * is connected: `invalid-state`.
   */
  askAgent(uuid: string, call: Call): Promise<AgentReport>;
}

/** What an agent tells; null: it does not tell that. */
export interface AgentReport {
  readonly hostName: string | null;
  /** The operating system's name as its users read it, with its version. */
  readonly osName: string | null;
  readonly kernelRelease: string | null;
  /** Without loopback and link-local ones. Those of network interfaces that only the guest knows are among them. */
  readonly addresses: readonly AgentAddress[];
}

export interface AgentAddress {
  /** In lower case. */
  readonly macAddress: string;
  /** In its shortest form, lower case. */
  readonly address: string;
}

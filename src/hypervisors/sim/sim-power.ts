import type { GuestType, ObservedPower } from "../hypervisor.ts";

/** The calls of the contract that change whether a domain runs. */
export type PowerCall =
  | "startDomain"
  | "requestShutdown"
  | "forceOffDomain"
  | "pauseDomain"
  | "resumeDomain"
  | "rebootDomain"
  | "resetDomain"
  | "saveDomain";

/** What a power call does, by the state that it finds. A state in neither list is refused with `invalid-state`. */
export interface PowerRule {
  /** States that it changes. */
  readonly from: readonly ObservedPower[];
  /** States that it leaves alone, and succeeds. */
  readonly keeps: readonly ObservedPower[];
  /** The state it leads to; null: the power stays, the guest starts anew. */
  readonly to: ObservedPower | null;
  /** Why, as the domain shows it afterwards. */
  readonly reason: string;
  /** What watchers are told. */
  readonly event: string;
  /** What the guest writes to its serial console. */
  readonly console: "boot" | "power-down" | null;
  /** The guest does it by itself, if it obeys. */
  readonly asksGuest: boolean;
  /** Needs memory, disks and networks of the host. */
  readonly admits: boolean;
  /** Guest types that have this at all; without: every one. */
  readonly guestTypes?: readonly GuestType[];
  /** What is otherwise where it finds a guest whose memory was saved. */
  readonly fromSaved?: Pick<PowerRule, "reason" | "console">;
  /** How long no domain is seen afterwards, in milliseconds. */
  readonly absentMs?: number;
}

const OFF: readonly ObservedPower[] = ["off", "crashed", "saved"];
const ON: readonly ObservedPower[] = ["running", "paused"];
const quiet = { console: null, asksGuest: false, admits: false } as const;

export const POWER_RULES: Readonly<Record<PowerCall, PowerRule>> = {
  startDomain: {
    ...quiet,
    from: OFF,
    keeps: ON,
    to: "running",
    reason: "booted",
    event: "started",
    console: "boot",
    admits: true,
    fromSaved: { reason: "restored", console: null },
  },
  // A paused guest hears nothing: the request is taken and comes to nothing.
  requestShutdown: {
    ...quiet,
    from: ["running"],
    keeps: [...OFF, "paused"],
    to: "off",
    reason: "shutdown",
    event: "stopped",
    console: "power-down",
    asksGuest: true,
  },
  forceOffDomain: {
    ...quiet,
    from: [...ON, "saved"],
    keeps: ["off", "crashed"],
    to: "off",
    reason: "destroyed",
    event: "stopped",
  },
  pauseDomain: {
    ...quiet,
    from: ["running"],
    keeps: ["paused"],
    to: "paused",
    reason: "user",
    event: "suspended",
  },
  resumeDomain: {
    ...quiet,
    from: ["paused"],
    keeps: ["running"],
    to: "running",
    reason: "unpaused",
    event: "resumed",
  },
  rebootDomain: {
    ...quiet,
    from: ["running"],
    keeps: ["paused"],
    to: null,
    reason: "booted",
    event: "rebooted",
    console: "boot",
    asksGuest: true,
  },
  resetDomain: {
    ...quiet,
    from: ON,
    keeps: [],
    to: null,
    reason: "booted",
    event: "rebooted",
    console: "boot",
  },
  saveDomain: { ...quiet, from: ON, keeps: ["saved"], to: "saved", reason: "saved", event: "stopped" },
};

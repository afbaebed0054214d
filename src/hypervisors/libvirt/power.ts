import type { ObservedPower } from "../hypervisor.ts";

/** virDomainState, from libvirt-domain.h. */
const STATE = {
  noState: 0,
  running: 1,
  blocked: 2,
  paused: 3,
  shutdown: 4,
  shutoff: 5,
  crashed: 6,
  pmSuspended: 7,
} as const;

/** Reasons by state, in the order of libvirt's enums (virDomainRunningReason and its like). Index 0 tells nothing. */
const RUNNING = [
  null,
  "booted",
  "migrated",
  "restored",
  "from-snapshot",
  "unpaused",
  "migration-cancelled",
  "save-cancelled",
  "wakeup",
  "crashed",
  "postcopy",
  "postcopy-failed",
] as const;
const PAUSED = [
  null,
  "user",
  "migration",
  "save",
  "dump",
  "ioerror",
  "watchdog",
  "from-snapshot",
  "shutting-down",
  "snapshot",
  "crashed",
  "starting-up",
  "postcopy",
  "postcopy-failed",
] as const;
const SHUTOFF = [
  null,
  "shutdown",
  "destroyed",
  "crashed",
  "migrated",
  "saved",
  "failed",
  "from-snapshot",
  "daemon",
] as const;

/** A domain's state and reason as numbers, as libvirt tells them. */
export interface DomainState {
  readonly state: number;
  readonly reason: number;
}

export interface PowerFacts {
  readonly power: ObservedPower;
  readonly reason: string | null;
}

/** True while the domain has a process or an instance on its host. */
export function isActive({ state }: DomainState): boolean {
  return state !== STATE.shutoff && state !== STATE.noState;
}

export function isRunning({ state }: DomainState): boolean {
  return state === STATE.running || state === STATE.blocked;
}

export function isPaused({ state }: DomainState): boolean {
  return state === STATE.paused;
}

/**
 * Power of a domain. A guest that sleeps (S3) is `paused` for the reason `pmsuspended`; one that is off with its
 * memory kept by libvirt (a managed save) is `saved`, for a start brings it back as it was. A QEMU that was killed or
 * ended by itself leaves the domain shut off for the reason `crashed`; `failed` is one that did not even start, and
 * is `off`.
 */
export function powerOf(state: DomainState, hasManagedSave: boolean): PowerFacts {
  switch (state.state) {
    case STATE.running:
    case STATE.blocked:
      return { power: "running", reason: reasonIn(RUNNING, state.reason) };
    case STATE.shutdown:
      return { power: "running", reason: "shutting-down" };
    case STATE.paused: {
      const reason = reasonIn(PAUSED, state.reason);
      return { power: reason === "crashed" ? "crashed" : "paused", reason };
    }
    case STATE.pmSuspended:
      return { power: "paused", reason: "pmsuspended" };
    case STATE.crashed:
      return { power: "crashed", reason: state.reason === 1 ? "panicked" : null };
    default:
      return powerOff(reasonIn(SHUTOFF, state.reason), hasManagedSave);
  }
}

function powerOff(reason: string | null, hasManagedSave: boolean): PowerFacts {
  if (hasManagedSave) return { power: "saved", reason: "saved" };
  return { power: reason === "crashed" ? "crashed" : "off", reason };
}

function reasonIn(reasons: readonly (string | null)[], index: number): string | null {
  return reasons[index] ?? null;
}

import type { ObservedPower } from "../hypervisor.ts";
import type { ListedDomain, ShutdownReason } from "./parse-list.ts";

/** What one look at the host shows of a domain. */
export interface DomainSighting {
  /** The domain as listed, not a dying one; null where there is none. */
  readonly listed: ListedDomain | null;
  /** Whether its memory lies in a file, whole. */
  readonly isSaved: boolean;
  /**
   * Whether a process of xl's lives that names the domain's configuration: the daemon that acts when the guest stops
   * itself, or a create, restore or save under way. Null where it cannot be known, for the domain is not ours.
   */
  readonly isServed: boolean | null;
}

export interface PowerFacts {
  readonly power: ObservedPower;
  readonly reason: string | null;
  /** The host is in between: look again soon. Where it stays so, the power and reason are right. */
  readonly isPassing: boolean;
}

/**
 * Power of a domain. While a guest reboots, its domain is gone for seconds and comes back under another id: that it
 * is not listed means `off` only where nobody is about to start it. One whose daemon died stays behind when its guest
 * stops: `off` for the reason `stranded` after a power-off, else `crashed`, for nobody will start it again.
 */
export function powerOf({ listed, isSaved, isServed }: DomainSighting): PowerFacts {
  if (listed === null) return unlisted(isSaved, isServed === true);
  if (listed.shutdown !== null) return stopped(listed.shutdown, isServed);
  if (!listed.isPaused) return { power: "running", reason: null, isPassing: false };
  // A domain that is being built or restored is paused until that is done.
  return { power: "paused", reason: null, isPassing: isServed === true && listed.cpuSeconds === 0 };
}

function unlisted(isSaved: boolean, isServed: boolean): PowerFacts {
  if (isSaved) return { power: "saved", reason: "saved", isPassing: isServed };
  if (isServed) return { power: "running", reason: "rebooting", isPassing: true };
  return { power: "off", reason: null, isPassing: false };
}

/** What a guest that stopped itself is, while somebody acts on it and when nobody does: power and reason. */
const STOPPED = {
  poweroff: { served: ["running", "shutting-down"], left: ["off", "stranded"] },
  reboot: { served: ["running", "rebooting"], left: ["crashed", "reboot-lost"] },
  "soft-reset": { served: ["running", "rebooting"], left: ["crashed", "reboot-lost"] },
  suspend: { served: ["paused", "saving"], left: ["crashed", "save-lost"] },
} as const satisfies Partial<
  Record<ShutdownReason, Record<"served" | "left", readonly [ObservedPower, string]>>
>;

function stopped(shutdown: ShutdownReason, isServed: boolean | null): PowerFacts {
  if (shutdown === "crash") return { power: "crashed", reason: "crashed", isPassing: false };
  if (shutdown === "watchdog" || shutdown === "unknown") {
    return { power: "crashed", reason: shutdown, isPassing: false };
  }
  const [power, reason] = STOPPED[shutdown][isServed === true ? "served" : "left"];
  // The list and the processes are not looked at in the same instant: one look cannot say that nobody acts.
  return { power, reason, isPassing: isServed !== null };
}

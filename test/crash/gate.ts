import { DroverError } from "../../src/lib/errors.ts";
import type { CrashPoint, CrashProbe, CrashSite } from "../../src/operations/crash-points.ts";

/** Where one operation of a kind is to be held, and what is to befall it on its way there. */
export interface Hold {
  readonly id: string;
  readonly kind: string;
  /** Null: the point is one of the operation, not of a step. */
  readonly step: string | null;
  readonly point: CrashPoint;
  /** What makes it turn back, once this step has taken effect and is not recorded. */
  readonly fault: { readonly what: "failure" | "cancel"; readonly afterStep: string } | null;
}

export interface GateEvents {
  /** An operation stands at its point, and does not go on. Null: the point is before any operation is taken. */
  onHeld(id: string, operationId: string | null): void;
  /** Asks, as a client would, to cancel an operation. */
  cancel(operationId: string): Promise<void>;
}

/**
 * The probe of a process that is to be killed. Holds operations, each at a point of its own, until the kill comes:
 * so one kill meets many operations. Which one of its kind an operation is does not matter: they are taken as they come.
 */
export class Gate {
  readonly #events: GateEvents;
  #free: Hold[] = [];
  /** Those that stand before they are taken; no operation is taken while there are any. */
  #unclaimed: readonly Hold[] = [];
  readonly #taken = new Map<string, Hold>();

  constructor(events: GateEvents) {
    this.#events = events;
  }

  arm(holds: readonly Hold[]): void {
    this.#unclaimed = holds.filter(({ point }) => point === "claim.before");
    this.#free = holds.filter(({ point }) => point !== "claim.before");
  }

  readonly probe: CrashProbe = async (point, site) => {
    if (point === "claim.before") {
      await this.#stopClaims();
      return;
    }
    const hold = this.#holdOf(site);
    if (hold === null || site.operationId === null) return;
    if (hold.point === point && hold.step === site.step) {
      this.#events.onHeld(hold.id, site.operationId);
      await forever();
    }
    if (point === "run.after" && hold.fault?.afterStep === site.step)
      await this.#strike(hold.fault.what, site.operationId);
  };

  async #stopClaims(): Promise<void> {
    if (this.#unclaimed.length === 0) return;
    for (const { id } of this.#unclaimed) this.#events.onHeld(id, null);
    await forever();
  }

  #holdOf({ operationId, kind }: CrashSite): Hold | null {
    if (operationId === null) return null;
    const taken = this.#taken.get(operationId);
    if (taken !== undefined) return taken;
    const index = this.#free.findIndex((hold) => hold.kind === kind);
    const [hold] = index === -1 ? [] : this.#free.splice(index, 1);
    if (hold === undefined) return null;
    this.#taken.set(operationId, hold);
    return hold;
  }

  async #strike(what: "failure" | "cancel", operationId: string): Promise<void> {
    if (what === "failure")
      throw new DroverError("hypervisor_error", "The crash matrix ordered this failure.");
    await this.#events.cancel(operationId);
  }
}

function forever(): Promise<never> {
  return new Promise(() => undefined);
}

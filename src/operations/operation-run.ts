import type { Database } from "../db/client.ts";
import type { HostConnection } from "../hypervisors/hypervisor.ts";
import type { HostId, OperationId } from "../lib/ids.ts";
import { asId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import type { CrashPoint, CrashProbe } from "./crash-points.ts";
import type { ClaimedOperation, RecordedStep } from "./operation-claim.ts";
import { contextOf } from "./operation-end.ts";
import type { AnyOperationKind, OperationContext, Step } from "./operation-kind.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import type { Claim } from "./operation-sql.ts";
import type { WorkerLease } from "./worker-lease.ts";

/** The hosts that this worker owns, with their epochs, and the live connection of each. */
export interface HostAccess {
  owned(): ReadonlyMap<HostId, bigint>;
  /** Throws HypervisorError `unreachable` while there is none. */
  connection(hostId: HostId): HostConnection;
  /** A call to the host got no answer in its time: asks the host whether it still answers at all. */
  suspect(hostId: HostId): void;
}

export interface RunDeps {
  readonly db: Database;
  readonly kinds: KindRegistry;
  readonly hosts: HostAccess;
  readonly lease: Pick<WorkerLease, "assertMaySend" | "isHeld">;
  readonly logger: Log;
  readonly probe: CrashProbe;
  /** How long an undo is tried before a person must look. */
  readonly undoSeconds: number;
}

/** Why a run is to stop before its step is done. */
export type StopReason = "cancel" | "deadline" | "drain" | "lost";

/** One claimed operation in the hands of this worker: what all parts of its run share. */
export class Run {
  readonly deps: RunDeps;
  readonly claimed: ClaimedOperation;
  readonly claim: Claim;
  readonly kind: AnyOperationKind;
  readonly operation: OperationContext<unknown>;
  readonly id: OperationId;
  readonly hostId: HostId | null;
  /** What is recorded of each step, by position; kept up to date by the run. */
  readonly recorded = new Map<number, RecordedStep>();
  /** Aborts what runs forward. */
  readonly #forward = new AbortController();
  /** Aborts an undo: only for the worker's own sake. */
  readonly #backward = new AbortController();
  #stop: StopReason | null = null;
  #draining = false;
  #cancelReason: ClaimedOperation["cancel_reason"];
  #closed = false;
  #deadline: NodeJS.Timeout | undefined;

  constructor(deps: RunDeps, claimed: ClaimedOperation) {
    this.deps = deps;
    this.claimed = claimed;
    this.claim = { operationId: claimed.id, token: claimed.token };
    this.kind = deps.kinds.get(claimed.kind);
    this.operation = contextOf(deps.kinds, claimed);
    this.id = asId<OperationId>(claimed.id);
    this.hostId = claimed.host_id === null ? null : asId<HostId>(claimed.host_id);
    this.#cancelReason = claimed.cancel_reason;
    for (const step of claimed.steps) this.recorded.set(step.position, step);
    if (claimed.state === "cancelling") this.#stop = "cancel";
  }

  get steps(): readonly Step<unknown>[] {
    return this.kind.steps;
  }

  get forwardSignal(): AbortSignal {
    return this.#forward.signal;
  }

  get backwardSignal(): AbortSignal {
    return this.#backward.signal;
  }

  /** Why it is to stop; null: it may go on. */
  get stop(): StopReason | null {
    return this.#stop;
  }

  get cancelReason(): ClaimedOperation["cancel_reason"] {
    return this.#cancelReason;
  }

  /** True when no further step is to begin here. */
  get draining(): boolean {
    return this.#draining;
  }

  /** True when the claim was given up or lost: whatever still runs in this process has no right any more. */
  get closed(): boolean {
    return this.#closed || this.#stop === "lost";
  }

  /** Starts the operation's own clock. */
  watchDeadline(): void {
    // Timers hold at most 2^31 ms; a deadline that far away is looked at again at the next claim.
    const leftMs = Math.min(Math.max(0, this.claimed.deadline_ms), 2 ** 31 - 1);
    this.#deadline = setTimeout(() => {
      this.interrupt("deadline");
    }, leftMs);
  }

  askCancel(reason: ClaimedOperation["cancel_reason"]): void {
    this.#cancelReason = reason;
    this.interrupt("cancel");
  }

  /** Lets the step that runs end, then gives the claim up. */
  drain(): void {
    this.#draining = true;
  }

  /** Aborts what runs. The first reason stands, but the loss of the right overrules all. */
  interrupt(reason: StopReason): void {
    if (this.#stop === null || reason === "lost" || reason === "drain") this.#stop = reason;
    if (reason === "drain" || reason === "lost") {
      this.#draining = true;
      this.#backward.abort(reason);
    }
    this.#forward.abort(reason);
  }

  /** Nothing that still runs in this process may act for the operation any more. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#deadline);
    this.#forward.abort("closed");
    this.#backward.abort("closed");
  }

  async probe(point: CrashPoint, step: string | null = null): Promise<void> {
    await this.deps.probe(point, { operationId: this.id, kind: this.kind.name, step });
  }
}

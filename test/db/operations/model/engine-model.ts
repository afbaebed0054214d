import type { OperationState } from "../../../../src/operations/operation-state.ts";

/**
 * What the engine is to do, in the small: pure, no clock, no database, one thing at a time. An operation that may run
 * stands at a gate, inside the call of one step or of its undo, until a command lets it go on; so after each command
 * there is exactly one state of everything in which the engine must come to rest.
 */

export type KindName = "change" | "stop" | "delete";

export interface Spec {
  readonly kind: KindName;
  readonly subjects: readonly { readonly vm: number; readonly exclusive: boolean }[];
  /** The host of each step, null: none; its length is the number of steps. */
  readonly hosts: readonly (number | null)[];
  readonly admit: "run" | "done" | "refuse";
}

export const RANKS: Readonly<Record<KindName, number>> = { change: 0, stop: 1, delete: 2 };
export const MAX_ATTEMPTS = 3;

export interface Gate {
  readonly step: number;
  readonly direction: "forward" | "backward";
}

/** What the host answers to the call at the gate. `refused` is a refusal by the inventory, not by the host. */
export type Outcome = "success" | "retryable" | "final" | "refused" | "unreachable";

export interface StepModel {
  begun: boolean;
  host: number | null;
  attempts: number;
  /** What it found is recorded: from then on it may have acted. */
  found: boolean;
  undone: boolean;
  /** Its effect lies on the host. */
  acted: boolean;
}

export interface OperationModel {
  readonly key: number;
  readonly spec: Spec;
  readonly steps: readonly StepModel[];
  /** What its events must be, in order. */
  readonly events: string[];
  /** Those that must have ended before it starts. */
  readonly after: ReadonlySet<number>;
  place: number;
  host: number | null;
  done: number;
  shown: "pending" | "running" | "cancelling";
  cancelAsked: boolean;
  /** Why it goes back; null: it goes forward. */
  undoing: "cancelled" | "failed" | null;
  gate: Gate | null;
  end: OperationState | null;
}

export class EngineModel {
  readonly operations = new Map<number, OperationModel>();
  readonly silent = new Set<number>();
  workers = 0;
  #places = 0;

  /** Everything on its way, in order. */
  unfinished(): OperationModel[] {
    return [...this.operations.values()]
      .filter(({ end }) => end === null)
      .toSorted((a, b) => a.place - b.place);
  }

  atGate(): OperationModel[] {
    return this.unfinished().filter(({ gate }) => gate !== null);
  }

  stateOf(operation: OperationModel): OperationState {
    if (operation.end !== null) return operation.end;
    return operation.shown === "pending" && this.#isBlocked(operation) ? "blocked" : operation.shown;
  }

  enqueue(key: number, spec: Spec): void {
    const rank = RANKS[spec.kind];
    const exclusive = spec.subjects.filter((subject) => subject.exclusive).map(({ vm }) => vm);
    for (const other of this.unfinished()) {
      const met = other.spec.subjects.some(({ vm }) => exclusive.includes(vm));
      if (met && RANKS[other.spec.kind] < rank) this.cancel(other);
    }
    this.operations.set(key, {
      key,
      spec,
      steps: spec.hosts.map(() => ({
        ...{ begun: false, host: null, attempts: 0 },
        ...{ found: false, undone: false, acted: false },
      })),
      events: ["created"],
      after: new Set(
        this.unfinished()
          .filter((other) => conflict(spec, other.spec))
          .map((other) => other.key),
      ),
      place: ++this.#places,
      host: spec.hosts[0] ?? null,
      done: 0,
      shown: "pending",
      cancelAsked: false,
      undoing: null,
      gate: null,
      end: null,
    });
  }

  /** Lets everything go on as far as it can. */
  settle(): void {
    for (;;) {
      const ready = this.unfinished().find(
        (operation) =>
          operation.gate === null &&
          this.workers > 0 &&
          !this.#isBlocked(operation) &&
          (operation.host === null || !this.silent.has(operation.host)),
      );
      if (ready === undefined) return;
      this.#claim(ready);
    }
  }

  /** What the host has done though it has not answered yet. */
  act(operation: OperationModel): void {
    const { gate } = operation;
    if (gate === null) return;
    stepOf(operation, gate.step).acted = gate.direction === "forward";
  }

  answer(operation: OperationModel, outcome: Outcome): void {
    const { gate } = operation;
    if (gate === null) return;
    if (outcome === "success") this.act(operation);
    operation.gate = null;
    const step = stepOf(operation, gate.step);
    if (gate.direction === "forward") this.#answerForward(operation, step, outcome);
    else if (outcome === "success") {
      step.undone = true;
      this.#goBack(operation);
    } else if (outcome === "final" || outcome === "refused") this.#end(operation, "attention");
  }

  /** What a client is told. */
  cancel(operation: OperationModel): "cancelled" | "asked" | "ended" | "invalid_state" {
    if (operation.end !== null) return "ended";
    if (operation.cancelAsked || operation.undoing !== null) return "asked";
    if (hasBegun(operation) && isForwardOnly(operation)) return "invalid_state";
    if (!hasBegun(operation)) {
      this.#end(operation, "cancelled");
      return "cancelled";
    }
    operation.cancelAsked = true;
    operation.shown = "cancelling";
    operation.events.push("cancelling");
    if (operation.gate !== null) this.#turnBack(operation, "cancelled");
    return "asked";
  }

  retry(operation: OperationModel): void {
    operation.end = null;
    operation.shown = "pending";
    operation.place = ++this.#places;
    operation.events.push("retried");
    for (const step of operation.steps.slice(operation.done)) step.attempts = 0;
  }

  /** The worker is gone in the middle: the call is not given back. */
  lose(operation: OperationModel): void {
    operation.gate = null;
  }

  /** A worker that drains has aborted the call: nothing was tried. */
  giveBack(operation: OperationModel): void {
    const { gate } = operation;
    operation.gate = null;
    if (gate?.direction === "forward") stepOf(operation, gate.step).attempts--;
  }

  /** The step ends while its worker drains, and nothing further begins there. */
  answerWhileDraining(operation: OperationModel): void {
    const { gate } = operation;
    if (gate === null) return;
    this.act(operation);
    operation.gate = null;
    if (gate.direction === "backward") {
      stepOf(operation, gate.step).undone = true;
      if (nextToUndo(operation) === null) this.#end(operation, operation.undoing ?? "failed");
      return;
    }
    this.#stepDone(operation);
  }

  /** Its deadline, or that of its undo, has passed while nobody runs it. */
  deadline(operation: OperationModel): void {
    if (!hasBegun(operation)) this.#end(operation, "failed");
    else if (isForwardOnly(operation) || operation.undoing !== null) this.#end(operation, "attention");
    else operation.undoing = "failed";
  }

  #isBlocked(operation: OperationModel): boolean {
    return this.unfinished().some(
      (other) => other.place < operation.place && conflict(other.spec, operation.spec),
    );
  }

  #claim(operation: OperationModel): void {
    if (operation.shown === "pending") operation.shown = "running";
    if (!operation.events.includes("started")) operation.events.push("started");
    if (operation.undoing !== null) this.#goBack(operation);
    else if (operation.shown === "cancelling") this.#turnBack(operation, "cancelled");
    else if (!hasBegun(operation) && operation.spec.admit === "done") this.#end(operation, "succeeded");
    else if (!hasBegun(operation) && operation.spec.admit === "refuse") this.#end(operation, "failed");
    else this.#begin(operation);
  }

  #begin(operation: OperationModel): void {
    const host = operation.spec.hosts[operation.done] ?? null;
    if (host !== null && host !== operation.host) {
      operation.host = host;
      return;
    }
    const step = stepOf(operation, operation.done);
    step.begun = true;
    step.host = host;
    // What cannot reach its host was not tried.
    if (host !== null && this.silent.has(host)) return;
    step.attempts++;
    step.found = true;
    operation.gate = { step: operation.done, direction: "forward" };
  }

  #answerForward(operation: OperationModel, step: StepModel, outcome: Outcome): void {
    if (outcome === "success") {
      this.#stepDone(operation);
      if (operation.end === null) this.#begin(operation);
    } else if (outcome === "unreachable") step.attempts--;
    else if (outcome === "retryable" && step.attempts < MAX_ATTEMPTS) return;
    else if (!isForwardOnly(operation)) this.#turnBack(operation, "failed");
    else this.#end(operation, outcome === "refused" && operation.done === 0 ? "failed" : "attention");
  }

  #stepDone(operation: OperationModel): void {
    operation.done++;
    operation.events.push("stepSucceeded");
    if (operation.done === operation.steps.length) this.#end(operation, "succeeded");
  }

  #turnBack(operation: OperationModel, why: "cancelled" | "failed"): void {
    operation.gate = null;
    operation.undoing = why;
    this.#goBack(operation);
  }

  #goBack(operation: OperationModel): void {
    for (;;) {
      const position = nextToUndo(operation);
      if (position === null) {
        this.#end(operation, operation.undoing ?? "failed");
        return;
      }
      const step = stepOf(operation, position);
      if (step.host !== null && step.host !== operation.host) {
        operation.host = step.host;
        return;
      }
      if (step.found) {
        if (step.host === null || !this.silent.has(step.host))
          operation.gate = { step: position, direction: "backward" };
        return;
      }
      step.undone = true;
    }
  }

  #end(operation: OperationModel, state: OperationState): void {
    operation.gate = null;
    operation.end = state;
    operation.events.push(state);
  }
}

export function isForwardOnly({ spec }: Pick<OperationModel, "spec">): boolean {
  return RANKS[spec.kind] > 0;
}

function hasBegun({ steps }: OperationModel): boolean {
  return steps.some(({ begun }) => begun);
}

/** True when the two may not act at the same time. */
export function conflict(a: Spec, b: Spec): boolean {
  return a.subjects.some((mine) =>
    b.subjects.some((other) => mine.vm === other.vm && (mine.exclusive || other.exclusive)),
  );
}

function stepOf(operation: OperationModel, position: number): StepModel {
  const step = operation.steps[position];
  if (step === undefined) throw new RangeError(`operation ${operation.key} has no step ${position}`);
  return step;
}

function nextToUndo({ steps }: OperationModel): number | null {
  const position = steps.findLastIndex((step) => step.begun && !step.undone);
  return position === -1 ? null : position;
}

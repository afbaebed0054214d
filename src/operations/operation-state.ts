/** The life of an operation, as data. Pure: every writer of `operation.state` moves along these arrows only. */

export const OPERATION_STATES = [
  "pending",
  "blocked",
  "running",
  "succeeded",
  "failed",
  "cancelling",
  "cancelled",
  "attention",
] as const;
export type OperationState = (typeof OPERATION_STATES)[number];

export const STEP_STATES = ["running", "succeeded", "failed", "undoing", "undone", "undoFailed"] as const;
export type StepState = (typeof STEP_STATES)[number];

/** Why an operation goes from one state to another. */
export type OperationMove =
  /** What it waited for has ended. */
  | "promote"
  /** A worker takes it. */
  | "claim"
  /** It came to its turn but its host does not answer: nothing has begun. */
  | "waitForHost"
  /** A client, or an operation that overtakes it, asks to end it after it has begun. */
  | "askCancel"
  | "succeed"
  | "fail"
  | "cancel"
  | "giveUp"
  /** A person asks to go on after `attention`: it queues again. */
  | "retry";

const TRANSITIONS: Readonly<
  Record<OperationState, Partial<Record<OperationMove, readonly OperationState[]>>>
> = {
  // One that was tried again after `attention` has begun: its deadline takes it back there.
  blocked: { promote: ["pending"], cancel: ["cancelled"], fail: ["failed"], giveUp: ["attention"] },
  pending: {
    claim: ["running"],
    askCancel: ["cancelling"],
    cancel: ["cancelled"],
    fail: ["failed"],
    giveUp: ["attention"],
  },
  running: {
    claim: ["running"],
    waitForHost: ["pending"],
    askCancel: ["cancelling"],
    succeed: ["succeeded"],
    fail: ["failed"],
    cancel: ["cancelled"],
    giveUp: ["attention"],
  },
  cancelling: {
    claim: ["cancelling"],
    // The request came too late: the last step was done, or it had failed by itself before.
    succeed: ["succeeded"],
    fail: ["failed"],
    cancel: ["cancelled"],
    giveUp: ["attention"],
  },
  attention: { retry: ["pending", "blocked"] },
  succeeded: {},
  failed: {},
  cancelled: {},
};

/** The states that a move can lead to from a state; none when the move is not allowed there. */
export function nextStates(from: OperationState, move: OperationMove): readonly OperationState[] {
  return TRANSITIONS[from][move] ?? [];
}

/** True when some move leads from one state to the other, or nothing changes. */
export function canBecome(from: OperationState, to: OperationState): boolean {
  return from === to || Object.values(TRANSITIONS[from]).some((next) => next.includes(to));
}

/** The states from which a move is allowed: what the statement that makes it must ask for. */
export function statesBefore(move: OperationMove): readonly OperationState[] {
  return OPERATION_STATES.filter((state) => nextStates(state, move).length > 0);
}

/** True when its lane is free: nothing happens to it any more, unless a person retries an `attention`. */
export function isEnded(state: OperationState): boolean {
  switch (state) {
    case "succeeded":
    case "failed":
    case "cancelled":
    case "attention":
      return true;
    case "pending":
    case "blocked":
    case "running":
    case "cancelling":
      return false;
  }
}

/** Steps that may have left something behind, in the order in which they are to be undone. */
export function undoOrder<S extends { readonly position: number; readonly state: StepState }>(
  steps: readonly S[],
): S[] {
  return steps.filter((step) => step.state !== "undone").toSorted((a, b) => b.position - a.position);
}

/** The first position that is not done yet. */
export function firstOpen(
  steps: readonly { readonly position: number; readonly state: StepState }[],
): number {
  const done = new Set(steps.filter((step) => step.state === "succeeded").map((step) => step.position));
  let position = 0;
  while (done.has(position)) position++;
  return position;
}

import { HypervisorError } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { Fenced, isDatabasePassing, SendingPaused } from "./operation-errors.ts";
import type { StopReason } from "./operation-run.ts";

/** What follows from the failure of a step. Pure. */
export type Verdict =
  /** The right is gone: stop at once, write nothing. */
  | "drop"
  /** This worker cannot go on now; nothing was wrong with the step. */
  | "release"
  /** The host does not answer: wait for it, whatever the number of attempts. */
  | "waitForHost"
  /** Try again later. */
  | "retry"
  /** It will not succeed. */
  | "final";

export interface Failure {
  readonly error: unknown;
  readonly stop: StopReason | null;
  /** Attempts so far, this one included, and how many there may be. */
  readonly attempts: number;
  readonly maxAttempts: number;
}

export function judge({ error, stop, attempts, maxAttempts }: Failure): Verdict {
  if (causedBy(error, Fenced) || stop === "lost") return "drop";
  if (stop === "drain") return "release";
  if (stop === "cancel" || stop === "deadline") return "final";
  if (causedBy(error, SendingPaused) || isDatabasePassing(error)) return "release";
  if (error instanceof HypervisorError && error.reason === "unreachable") return "waitForHost";
  return isRetryable(error) && attempts < maxAttempts ? "retry" : "final";
}

/** A driver may have wrapped what was thrown in the tick of its write. */
function causedBy(error: unknown, type: abstract new (...arguments_: never) => Error): boolean {
  if (error instanceof type) return true;
  return error instanceof Error && error.cause !== error && causedBy(error.cause, type);
}

/** Only what says of itself that it may pass: a mistake in our own code will not. */
function isRetryable(error: unknown): boolean {
  if (error instanceof HypervisorError) return error.retryable;
  return error instanceof DroverError && error.retry === "temporary" && error.code !== "internal";
}

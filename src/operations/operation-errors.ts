import { isDatabaseUnavailable, isSerializationConflict } from "../db/database-errors.ts";
import { HypervisorError, type HypervisorErrorReason } from "../hypervisors/hypervisor.ts";
import { DroverError, type ErrorCode, messageOf } from "../lib/errors.ts";

/** The right to an operation is gone: another worker has it, or may have it. Stop at once, compensate nothing. */
export class Fenced extends Error {
  override readonly name = "Fenced";
  constructor(message = "this worker has no right to the operation any more") {
    super(message);
  }
}

/** The worker may not talk to hosts at this moment, though the operation is still its own. */
export class SendingPaused extends Error {
  override readonly name = "SendingPaused";
  constructor() {
    super("the worker's lease is not confirmed at this moment");
  }
}

const CODES: Readonly<Record<HypervisorErrorReason, ErrorCode>> = {
  unreachable: "host_unreachable",
  timeout: "deadline_exceeded",
  aborted: "cancelled",
  "host-key-unknown": "host_key_unknown",
  authentication: "host_unreachable",
  "not-found": "hypervisor_error",
  "already-exists": "already_exists",
  foreign: "conflict",
  "invalid-state": "invalid_state",
  "invalid-spec": "hypervisor_error",
  "no-capacity": "no_placement",
  "storage-full": "storage_full",
  unsupported: "capability_unsupported",
  busy: "conflict",
  failed: "hypervisor_error",
};

/** Anything thrown by a step, as the client sees it. The cause is kept for the log. */
export function operationError(error: unknown): DroverError {
  if (error instanceof DroverError) return error;
  if (error instanceof HypervisorError) {
    return new DroverError(CODES[error.reason], error.message, {
      ...(error.retryable ? { retry: "temporary" as const } : {}),
      ...(error.details === undefined ? {} : { details: error.details }),
      cause: error,
    });
  }
  if (isDatabaseUnavailable(error)) {
    return new DroverError("unavailable", "The database did not answer; the operation goes on by itself.", {
      cause: error,
    });
  }
  const message =
    "The step failed by an error of Drover itself; the service's log has the details under this operation.";
  return new DroverError("internal", message, { retry: "never", cause: error });
}

/** True where only the database could not be asked, or others got in the way: the same again goes well later. */
export function isDatabasePassing(error: unknown): boolean {
  if (error instanceof DroverError) return error.code === "unavailable";
  return isDatabaseUnavailable(error) || isSerializationConflict(error);
}

/** True for what is a mistake in our own code: nothing that a client or an operator did. */
export function isBug(error: unknown): boolean {
  return !(error instanceof DroverError || error instanceof HypervisorError || isDatabaseUnavailable(error));
}

export function deadlineError(seconds: number | null): DroverError {
  const after = seconds === null ? "" : ` after ${seconds} seconds`;
  return new DroverError(
    "deadline_exceeded",
    `The operation was not done by its deadline${after}. Ask for it again.`,
  );
}

/** The error of an operation whose undo failed too. */
export function attentionError(original: DroverError, step: string, undo: unknown): DroverError {
  const message = `${original.message} Undoing the step "${step}" failed too: ${messageOf(operationError(undo))}`;
  return new DroverError(original.code, message, {
    retry: "never",
    ...(original.details === undefined ? {} : { details: original.details }),
    cause: undo,
  });
}

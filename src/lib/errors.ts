/**
 * The one catalogue of errors that reach a client. A code says what happened; only http/problem.ts knows
 * which HTTP status it becomes.
 */
export const ERROR_CODES = [
  "invalid_request",
  "upgrade_required",
  "unsupported_media_type",
  "payload_too_large",
  "unauthenticated",
  "forbidden",
  "not_found",
  "method_not_allowed",
  "name_taken",
  "already_exists",
  "in_use",
  "precondition_failed",
  "conflict",
  "invalid_state",
  "idempotency_key_reused",
  "idempotency_key_in_progress",
  "no_placement",
  "addresses_exhausted",
  "capability_unsupported",
  "host_unreachable",
  "host_key_unknown",
  "image_invalid",
  "image_not_ready",
  "image_build_failed",
  "checksum_mismatch",
  "address_forbidden",
  "download_failed",
  "storage_full",
  "hypervisor_error",
  "guest_did_not_stop",
  "guest_did_not_let_go",
  "deadline_exceeded",
  "cancelled",
  "superseded",
  "too_many_requests",
  "unavailable",
  "internal",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** Whether and when the same request may succeed later. */
export type Retry = "never" | "afterStateChange" | "afterCapacity" | "temporary";

/** One thing that is wrong with a request: a JSON pointer into the body (or the name of a parameter), and why. */
export interface Violation {
  readonly pointer: string;
  readonly message: string;
}

const RETRY: Partial<Record<ErrorCode, Retry>> = {
  in_use: "afterStateChange",
  precondition_failed: "afterStateChange",
  conflict: "afterStateChange",
  invalid_state: "afterStateChange",
  image_not_ready: "afterStateChange",
  guest_did_not_stop: "afterStateChange",
  guest_did_not_let_go: "afterStateChange",
  superseded: "afterStateChange",
  no_placement: "afterCapacity",
  addresses_exhausted: "afterCapacity",
  storage_full: "afterCapacity",
  idempotency_key_in_progress: "temporary",
  host_unreachable: "temporary",
  download_failed: "temporary",
  deadline_exceeded: "temporary",
  too_many_requests: "temporary",
  unavailable: "temporary",
  internal: "temporary",
};

export interface DroverErrorOptions {
  readonly violations?: readonly Violation[];
  readonly retry?: Retry;
  /** Facts for programs, such as the refusal of each host of a `no_placement`; must be JSON. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

/** An error with a meaning for the client: its message says what was wrong and what to do, and holds no secret. */
export class DroverError extends Error {
  override readonly name = "DroverError";
  readonly code: ErrorCode;
  readonly retry: Retry;
  readonly violations: readonly Violation[];
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, options: DroverErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retry = options.retry ?? RETRY[code] ?? "never";
    this.violations = options.violations ?? [];
    this.details = options.details;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** An error as it is kept in an operation, a step or a condition, and shown to the client. */
export interface ErrorBody {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retry: Retry;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Turns anything thrown into the form that is stored. An unknown error keeps its message out of the answer. */
export function toErrorBody(error: unknown): ErrorBody {
  if (error instanceof DroverError) {
    const body = { code: error.code, message: error.message, retry: error.retry };
    return error.details === undefined ? body : { ...body, details: error.details };
  }
  return {
    code: "internal",
    message: "An internal error occurred; the service's log has the details under this request or operation.",
    retry: "temporary",
  };
}

/** The message of anything thrown, for logs and causes. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

import { STATUS_CODES } from "node:http";
import { z } from "zod";
import {
  DroverError,
  type DroverErrorOptions,
  ERROR_CODES,
  type ErrorCode,
  toErrorBody,
} from "../lib/errors.ts";

/** The only place where an error becomes an HTTP status, and its title, which is the same every time. */
export const PROBLEMS: Readonly<Record<ErrorCode, { readonly status: number; readonly title: string }>> = {
  invalid_request: { status: 422, title: "The request is not valid" },
  upgrade_required: { status: 426, title: "The path is a WebSocket" },
  unsupported_media_type: { status: 415, title: "The content type is not taken here" },
  payload_too_large: { status: 413, title: "The body is too large" },
  unauthenticated: { status: 401, title: "A valid token is needed" },
  forbidden: { status: 403, title: "The token does not reach this" },
  not_found: { status: 404, title: "There is no such thing" },
  method_not_allowed: { status: 405, title: "The path does not take this method" },
  name_taken: { status: 409, title: "The name is taken" },
  already_exists: { status: 409, title: "It already exists" },
  in_use: { status: 409, title: "It is in use" },
  precondition_failed: { status: 412, title: "It was changed in the meantime" },
  conflict: { status: 409, title: "The request conflicts with another one" },
  invalid_state: { status: 409, title: "The state does not allow this" },
  idempotency_key_reused: { status: 422, title: "The idempotency key belongs to another request" },
  idempotency_key_in_progress: { status: 409, title: "The first request with this key is not answered yet" },
  no_placement: { status: 409, title: "No host can take the VM" },
  addresses_exhausted: { status: 409, title: "The network has no address left" },
  capability_unsupported: { status: 409, title: "This is not supported here" },
  host_unreachable: { status: 503, title: "The host does not answer" },
  host_key_unknown: { status: 409, title: "The host's key is not known" },
  image_invalid: { status: 422, title: "The image is not valid" },
  image_build_failed: { status: 422, title: "The image could not be built" },
  image_not_ready: { status: 409, title: "The image is not ready" },
  checksum_mismatch: { status: 422, title: "The checksum does not match" },
  address_forbidden: { status: 422, title: "The address may not be fetched from" },
  download_failed: { status: 502, title: "The download failed" },
  storage_full: { status: 507, title: "The storage is full" },
  hypervisor_error: { status: 502, title: "The hypervisor refused" },
  guest_did_not_stop: { status: 409, title: "The guest did not stop" },
  guest_did_not_let_go: { status: 409, title: "The guest did not let go of the disk" },
  deadline_exceeded: { status: 504, title: "The time is up" },
  cancelled: { status: 409, title: "It was cancelled" },
  superseded: { status: 409, title: "Another operation took over" },
  too_many_requests: { status: 429, title: "Too many requests" },
  unavailable: { status: 503, title: "The service is not available right now" },
  internal: { status: 500, title: "Something went wrong in the service" },
};

/** Statuses of requests that are broken below the level of schemas; all carry the code `invalid_request`. */
export type MalformedStatus = 400 | 408 | 414 | 431;

/** A request that cannot be read at all: broken JSON, broken UTF-8, a body that never ended, headers too long. */
export class MalformedRequest extends DroverError {
  readonly malformedStatus: MalformedStatus;

  constructor(message: string, options: DroverErrorOptions & { readonly status?: MalformedStatus } = {}) {
    super("invalid_request", message, options);
    this.malformedStatus = options.status ?? 400;
  }
}

/** The HTTP status of anything thrown. */
export function statusOf(error: unknown): number {
  if (error instanceof MalformedRequest) return error.malformedStatus;
  return PROBLEMS[error instanceof DroverError ? error.code : "internal"].status;
}

const ViolationSchema = z
  .strictObject({
    pointer: z
      .string()
      .meta({ description: "JSON pointer into the body, or the name of a parameter or header." }),
    message: z.string(),
  })
  .meta({ id: "Violation" });

const RetrySchema = z.enum(["never", "afterStateChange", "afterCapacity", "temporary"]).meta({
  id: "Retry",
  description:
    "Whether and when the same request may succeed: never, once the state has changed, once there is capacity, " +
    "or soon and by itself.",
});

const ErrorCodeSchema = z.enum(ERROR_CODES).meta({ id: "ErrorCode" });

/** An error inside a resource: of an operation, a step or a condition. The same shape as `ErrorBody`. */
export const ErrorBodySchema = z
  .strictObject({
    code: ErrorCodeSchema,
    message: z.string(),
    retry: RetrySchema,
    details: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ id: "ErrorBody" });

export const ProblemSchema = z
  .strictObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: "What was wrong and what to do." }),
    code: ErrorCodeSchema,
    requestId: z.string(),
    retry: RetrySchema,
    violations: z.array(ViolationSchema),
    details: z.record(z.string(), z.unknown()).optional().meta({ description: "Facts for programs." }),
  })
  .meta({
    id: "Problem",
    description: "RFC 9457 problem details, sent as application/problem+json.",
    examples: [
      {
        type: "urn:drover:problem:invalid_request",
        title: "The request is not valid",
        status: 422,
        detail: "The request has 1 violation: /spec/memoryMib: must be at least 16",
        code: "invalid_request",
        requestId: "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77",
        retry: "never",
        violations: [{ pointer: "/spec/memoryMib", message: "must be at least 16" }],
      },
    ],
  });

export type Problem = z.output<typeof ProblemSchema>;

export const PROBLEM_MEDIA_TYPE = "application/problem+json";

/** Writes anything thrown as a problem. What is not a DroverError keeps its message out of the answer. */
export function toProblem(error: unknown, requestId: string): Problem {
  const body = toErrorBody(error);
  const status = statusOf(error);
  const malformed =
    error instanceof MalformedRequest && error.malformedStatus !== PROBLEMS.invalid_request.status;
  return {
    type: `urn:drover:problem:${body.code}`,
    title: malformed ? (STATUS_CODES[status] ?? "Bad Request") : PROBLEMS[body.code].title,
    status,
    detail: body.message,
    code: body.code,
    requestId,
    retry: body.retry,
    violations: error instanceof DroverError ? [...error.violations] : [],
    ...(body.details === undefined ? {} : { details: body.details }),
  };
}

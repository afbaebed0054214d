import { PROBLEMS } from "../http/problem.ts";
import type { DroverError } from "../lib/errors.ts";

/** Why a console's WebSocket is closed: a code and a sentence for people. */
export interface ConsoleEnd {
  readonly code: number;
  readonly reason: string;
}

/** What a close frame has room for beside its code. */
const REASON_MAX_BYTES = 123;
/** Codes of applications begin here (RFC 6455, section 7.4.2): ours say the HTTP status that an answer would have. */
const APPLICATION_CODES = 4000;

export const IDLE: ConsoleEnd = {
  code: 4408,
  reason: "Nothing was typed or shown for too long. Open the console anew.",
};
export const TOO_LONG: ConsoleEnd = {
  code: 4408,
  reason: "The console was open for as long as one may be. Open it anew.",
};
export const REVOKED: ConsoleEnd = {
  code: 4401,
  reason: "The token that opened the console was revoked or is over.",
};
export const GUEST_OFF: ConsoleEnd = { code: 1000, reason: "The VM is off." };
export const TAKEN: ConsoleEnd = {
  code: 4409,
  reason: "The host closed the console: another client took it over, or the connection to the host broke.",
};

/** A refusal as a close frame. */
export function endOf(error: DroverError): ConsoleEnd {
  return { code: APPLICATION_CODES + PROBLEMS[error.code].status, reason: shortened(error.message) };
}

/** The longest beginning that a close frame takes, whole characters only. */
export function shortened(text: string): string {
  if (Buffer.byteLength(text) <= REASON_MAX_BYTES) return text;
  const cut = Buffer.from(text).subarray(0, REASON_MAX_BYTES - 3);
  return `${new TextDecoder().decode(cut).replace(/\ufffd$/, "")}…`;
}

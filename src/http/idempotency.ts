import { createHash } from "node:crypto";
import { DroverError } from "../lib/errors.ts";

/** The pure part of safe retries: what a key may look like, and when two requests are the same. */

// Visible ASCII; longer than any UUID or hash that clients send.
const KEY = /^[\x21-\x7e]{1,255}$/;

/** Reads the `Idempotency-Key` header; null: the client sent none. Throws `invalid_request` for a wrong one. */
export function parseIdempotencyKey(header: string | readonly string[] | undefined): string | null {
  if (header === undefined) return null;
  if (typeof header === "string" && KEY.test(header)) return header;
  const message = "must be 1 to 255 visible ASCII characters, and be sent once";
  throw new DroverError("invalid_request", `The header Idempotency-Key ${message}.`, {
    violations: [{ pointer: "Idempotency-Key", message }],
  });
}

/**
 * What a key is bound to: the body and the query, whatever the order of their keys. `wait` and `project` are left
 * out: the one does not change what is done, the other is part of the key's scope.
 */
export function requestHash(query: Readonly<Record<string, unknown>>, body: unknown): Uint8Array {
  const asked = Object.entries(query).filter(([name]) => name !== "wait" && name !== "project");
  const text = JSON.stringify([sorted(Object.fromEntries(asked)), sorted(body ?? null)]);
  return createHash("sha256").update(text).digest();
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  // An object of its own form, so that no array can be taken for it.
  return { members: entries.map(([key, child]) => [key, sorted(child)]) };
}

export function keyInProgress(): DroverError {
  return new DroverError(
    "idempotency_key_in_progress",
    "The first request with this Idempotency-Key is not answered yet. Send it again in a moment.",
    { retryAfterSeconds: 1 },
  );
}

export function keyReused(): DroverError {
  return new DroverError(
    "idempotency_key_reused",
    "This Idempotency-Key was used for a request with another body or query. Use a new key for a new request.",
    { violations: [{ pointer: "Idempotency-Key", message: "belongs to another request" }] },
  );
}

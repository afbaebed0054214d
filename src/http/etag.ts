import { DroverError } from "../lib/errors.ts";

/**
 * `If-Match` as it was sent: any revision of an existing resource, or a list of revisions. Weak tags and tags that
 * are not ours match nothing (RFC 9110 asks for strong comparison), so they end as 412, not as a wrong request.
 */
export type IfMatch = { readonly kind: "any" } | { readonly kind: "tags"; readonly tags: readonly string[] };

/** The tag of a revision: generation 3 is `"3"`. */
export function etagOf(generation: number): string {
  return `"${generation}"`;
}

// RFC 9110, 8.8.3: an entity tag, perhaps weak, and what may stand between two in a list.
const TAG = /^(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"$/;

/** Parses an `If-Match` header. Throws `invalid_request` where it is not a list of entity tags. */
export function parseIfMatch(header: string): IfMatch {
  const text = header.trim();
  if (text === "*") return { kind: "any" };
  const tags: string[] = [];
  for (const part of splitTags(text)) {
    const match = TAG.exec(part);
    if (match === null) throw malformedIfMatch();
    if (match[1] === undefined) tags.push(match[2] ?? "");
  }
  return { kind: "tags", tags };
}

/** A comma may stand inside a tag, so the list is cut outside of quotes only; empty elements are allowed. */
function splitTags(text: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let quoted = false;
  for (let at = 0; at <= text.length; at++) {
    const char = text[at];
    if (char === '"') quoted = !quoted;
    if (at < text.length && (char !== "," || quoted)) continue;
    const part = text.slice(start, at).trim();
    if (part !== "") parts.push(part);
    start = at + 1;
  }
  if (parts.length === 0) throw malformedIfMatch();
  return parts;
}

function malformedIfMatch(): DroverError {
  const message = 'must be `*` or a list of entity tags such as "3"';
  return new DroverError("invalid_request", `The header If-Match ${message}.`, {
    violations: [{ pointer: "If-Match", message }],
  });
}

/**
 * Refuses a lost update: throws `precondition_failed` where the caller named revisions and none is the current one.
 * Call it in the transaction that changes the row, with the row locked.
 */
export function requireMatch(ifMatch: IfMatch | null, generation: number): void {
  if (ifMatch === null || ifMatch.kind === "any" || ifMatch.tags.includes(String(generation))) return;
  throw new DroverError(
    "precondition_failed",
    `It is at revision ${generation} now, not at the one in If-Match: read it again, then repeat your change.`,
    { details: { generation } },
  );
}

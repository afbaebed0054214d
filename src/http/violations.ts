import type { z } from "zod";
import { DroverError, type Violation } from "../lib/errors.ts";

/** Turns what zod found wrong into violations that say where and what. */

/** The part of a request that a schema was for. */
export type RequestPart = "body" | "querystring" | "params" | "headers";

// A body of wrong entries must not make an answer larger than itself.
const MAX_VIOLATIONS = 50;

/** The violations of one part: JSON pointers for the body, names for parameters and headers. */
export function violationsOf(error: z.core.$ZodError, part: RequestPart): Violation[] {
  const violations = error.issues.flatMap((issue) => fromIssue(issue, issue.path, part));
  return violations.slice(0, MAX_VIOLATIONS);
}

function fromIssue(issue: z.core.$ZodIssue, path: readonly PropertyKey[], part: RequestPart): Violation[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      pointer: pointerTo([...path, key], part),
      message: unknownName(part),
    }));
  }
  const nearest = issue.code === "invalid_union" ? nearestBranch(issue.errors) : [];
  if (nearest.length > 0) {
    return nearest.flatMap((inner) => fromIssue(inner, [...path, ...inner.path], part));
  }
  return [{ pointer: pointerTo(path, part), message: messageOfIssue(issue) }];
}

/** Of a union's branches the one that fits best is what the client most likely meant. */
function nearestBranch(branches: readonly z.core.$ZodIssue[][]): readonly z.core.$ZodIssue[] {
  const [first, ...others] = branches;
  if (first === undefined) return [];
  return others.reduce((best, branch) => (branch.length < best.length ? branch : best), first);
}

function unknownName(part: RequestPart): string {
  return part === "querystring" ? "is not a parameter of this path" : "is not a known member";
}

function messageOfIssue(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) return "is required";
  return issue.message;
}

function pointerTo(path: readonly PropertyKey[], part: RequestPart): string {
  if (part !== "body") return path.map(String).join(".");
  return path.map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

const MAX_SHOWN = 3;
const MAX_SHOWN_LENGTH = 200;

/** The error for a request that does not match its schema. */
export function invalidRequest(violations: readonly Violation[]): DroverError {
  const shown = violations
    .slice(0, MAX_SHOWN)
    .map(
      ({ pointer, message }) =>
        `${pointer === "" ? "the body" : pointer.slice(0, MAX_SHOWN_LENGTH)}: ${message}`,
    );
  const more = violations.length > MAX_SHOWN ? `, and ${violations.length - MAX_SHOWN} more` : "";
  return new DroverError("invalid_request", `The request is not valid: ${shown.join("; ")}${more}.`, {
    violations,
  });
}

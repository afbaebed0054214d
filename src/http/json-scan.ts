import { MalformedRequest } from "./problem.ts";

/**
 * What JSON.parse lets pass and we do not: a key that stands twice (which one is meant?), `__proto__`, and nesting
 * without end. Runs over text that JSON.parse has accepted, so the grammar is not checked again.
 */

export const MAX_JSON_DEPTH = 32;

interface Container {
  /** The keys seen so far; null for an array. */
  readonly keys: Set<string> | null;
  /** In an object: the next string is a key. */
  expectsKey: boolean;
}

/** Throws MalformedRequest for a duplicate key, `__proto__` as a key, or nesting deeper than MAX_JSON_DEPTH. */
export function checkJson(text: string): void {
  const stack: Container[] = [];
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    const top = stack.at(-1);
    if (char === '"') {
      const end = endOfString(text, at);
      if (top?.expectsKey === true && top.keys !== null) {
        takeKey(top.keys, text.slice(at, end + 1));
        top.expectsKey = false;
      }
      at = end;
    } else if (char === "{" || char === "[") {
      if (stack.length >= MAX_JSON_DEPTH) throw tooDeep();
      stack.push({ keys: char === "{" ? new Set() : null, expectsKey: char === "{" });
    } else if (char === "}" || char === "]") {
      stack.pop();
    } else if (char === "," && top !== undefined) {
      top.expectsKey = top.keys !== null;
    }
  }
}

/** The position of the quote that closes the string which opens at `start`. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

function takeKey(keys: Set<string>, literal: string): void {
  // "a" and "\u0061" are the same key.
  const key = literal.includes("\\") ? (JSON.parse(literal) as string) : literal.slice(1, -1);
  const shown = JSON.stringify(key.slice(0, 64));
  if (key === "__proto__") throw new MalformedRequest(`The body holds the key ${shown}, which is not taken.`);
  if (keys.has(key)) throw new MalformedRequest(`The body holds the key ${shown} twice in one object.`);
  keys.add(key);
}

function tooDeep(): MalformedRequest {
  return new MalformedRequest(`The body is nested deeper than ${MAX_JSON_DEPTH} levels.`);
}

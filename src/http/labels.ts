import { z } from "zod";

/** Labels, and the selectors that lists are filtered by. Pure: stores turn a selector into SQL. */

const KEY_TEXT = "[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?";
// Empty, or like a key without the slash.
const VALUE_TEXT = "(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?";
const KEY = new RegExp(`^${KEY_TEXT}$`);
const VALUE = new RegExp(`^${VALUE_TEXT}$`);

export const MAX_LABELS = 64;

const LabelKey = z
  .string()
  .regex(
    KEY,
    "a label's key must be 1 to 63 of A-Z a-z 0-9 . _ / -, and begin and end with a letter or digit",
  );
const LabelValue = z
  .string()
  .regex(
    VALUE,
    "a label's value must be up to 63 of A-Z a-z 0-9 . _ -, and begin and end with a letter or digit",
  );

/** The labels of a resource. */
export const Labels = z
  .record(LabelKey, LabelValue)
  .refine((labels) => Object.keys(labels).length <= MAX_LABELS, `at most ${MAX_LABELS} labels`)
  .meta({ id: "Labels", description: `At most ${MAX_LABELS} labels.`, examples: [{ role: "web" }] });

export type Labels = z.output<typeof Labels>;

/** Labels in a JSON Merge Patch: null removes one. */
export const LabelsPatch = z.record(LabelKey, LabelValue.nullable()).meta({
  id: "LabelsPatch",
  description: "Labels to set; null removes one.",
  examples: [{ role: "db", old: null }],
});

/** Applies a merge patch to labels. The caller checks the outcome against `Labels`: it may be too many. */
export function patchLabels(labels: Labels, patch: z.output<typeof LabelsPatch>): Labels {
  const patched = new Map(Object.entries(labels));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) patched.delete(key);
    else patched.set(key, value);
  }
  return Object.fromEntries(patched);
}

/** One condition. `notIn` holds for what lacks the label too, as its users know it from elsewhere. */
export type LabelRequirement =
  | { readonly kind: "in" | "notIn"; readonly key: string; readonly values: readonly string[] }
  | { readonly kind: "exists" | "absent"; readonly key: string };

const MAX_REQUIREMENTS = 32;

const COMPARISON = new RegExp(`^(${KEY_TEXT})\\s*(==|=|!=)\\s*(${VALUE_TEXT})$`);
const MEMBERSHIP = new RegExp(`^(${KEY_TEXT})\\s+(in|notin)\\s*\\(([^()]*)\\)$`);
const PRESENCE = new RegExp(`^(!?)\\s*(${KEY_TEXT})$`);

/**
 * Parses `role=web,tier!=db,env in (a,b),zone notin (c),!legacy,owner`; all conditions must hold.
 * Null: the text is not a selector.
 */
export function parseLabelSelector(text: string): readonly LabelRequirement[] | null {
  const parts = splitOutsideParentheses(text);
  if (parts.length > MAX_REQUIREMENTS) return null;
  const requirements: LabelRequirement[] = [];
  for (const part of parts) {
    const requirement = parseRequirement(part.trim());
    if (requirement === null) return null;
    requirements.push(requirement);
  }
  return requirements;
}

function splitOutsideParentheses(text: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let inside = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "(" || char === ")") inside = char === "(";
    else if (char === "," && !inside) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  return [...parts, text.slice(start)];
}

function parseRequirement(text: string): LabelRequirement | null {
  const comparison = COMPARISON.exec(text);
  if (comparison !== null) {
    const [, key = "", operator, value = ""] = comparison;
    return { kind: operator === "!=" ? "notIn" : "in", key, values: [value] };
  }
  const membership = MEMBERSHIP.exec(text);
  if (membership !== null) {
    const [, key = "", operator, list = ""] = membership;
    const values = list.split(",").map((value) => value.trim());
    if (!values.every((value) => VALUE.test(value))) return null;
    return { kind: operator === "in" ? "in" : "notIn", key, values };
  }
  const presence = PRESENCE.exec(text);
  if (presence === null) return null;
  return { kind: presence[1] === "!" ? "absent" : "exists", key: presence[2] ?? "" };
}

const MAX_SELECTOR_LENGTH = 2048;

/** `labelSelector` of a list, parsed. */
export const LabelSelector = z
  .string()
  .max(MAX_SELECTOR_LENGTH)
  .transform((text, context): readonly LabelRequirement[] => {
    const requirements = parseLabelSelector(text);
    if (requirements !== null) return requirements;
    const message = "must be conditions such as role=web,tier!=db,env in (a,b),!legacy,owner, at most 32";
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  })
  .meta({
    description:
      "Conditions on labels, such as `role=web,tier!=db,env in (a,b),!legacy,owner`; all must hold.",
  });

import { z } from "zod";
import { isUuid } from "../lib/ids.ts";

/** Zod pieces that every feature's schemas are made of. Text never holds control characters, NUL included. */

// Cc: C0, DEL, C1. Cs: lone halves of surrogate pairs, which UTF-8 cannot hold.
const PLAIN_TEXT = /^[^\p{Cc}\p{Cs}]*$/u;

/** One line of text for people, `min` (1 without) to `max` characters. */
export function plainText(options: { readonly min?: number; readonly max: number }): z.ZodString {
  return z
    .string()
    .min(options.min ?? 1)
    .max(options.max)
    .regex(PLAIN_TEXT, "must not contain control characters");
}

// RFC 1123's label, without what could be taken for an id.
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** The name of a resource: what stands in paths, domain names and file names. */
export const Name = z
  .string()
  .regex(
    NAME,
    "must be 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit",
  )
  .refine((name) => !isUuid(name), "must not look like a UUID")
  .meta({
    description: "Unique in its project. 1 to 63 lower-case letters, digits and hyphens.",
    examples: ["web-1"],
  });

/** An id as the server makes them: a UUIDv7; those of adopted domains may be of another version. */
export const Id = z
  .string()
  .refine(isUuid, "must be a lower-case UUID")
  .meta({ format: "uuid", examples: ["0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77"] });

/** True for what can be an id or a name; a UUID is made of what names are made of. */
export function isIdOrName(text: string): boolean {
  return NAME.test(text);
}

/** An id or a name, as paths and filters take them. Take it apart with `referenceOf`. */
export const IdOrName = z
  .string()
  .regex(NAME, "must be an id or a name")
  .meta({ examples: ["web-1"] });

/** Which row a path or filter means: spread it into a `where`. */
export type Reference = { readonly id: string } | { readonly name: string };

/** Takes an `IdOrName` apart. A name never looks like a UUID, so there is no doubt. */
export function referenceOf(idOrName: string): Reference {
  return isUuid(idOrName) ? { id: idOrName } : { name: idOrName };
}

/** A time in answers: RFC 3339 in UTC with milliseconds, as `Date.toISOString` writes it. */
export const Timestamp = z
  .string()
  .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  .meta({ format: "date-time", examples: ["2026-01-31T12:00:00.000Z"] });

/** A time in requests: RFC 3339 with any offset. */
export const TimestampInput = z.iso
  .datetime({ offset: true })
  .refine((text) => !Number.isNaN(Date.parse(text)), "must be a time that exists")
  .meta({ examples: ["2026-01-31T12:00:00Z"] });

/** Writes a row's time for an answer; null stays null. */
export function timestamp(date: Date): string;
export function timestamp(date: Date | null): string | null;
export function timestamp(date: Date | null): string | null {
  return date === null ? null : date.toISOString();
}

// Digits only: Number() alone would take "", "0x10" and "1e3".
const INTEGER = /^-?\d{1,15}$/;

function numberFromText(value: unknown): unknown {
  return typeof value === "string" && INTEGER.test(value) ? Number(value) : value;
}

/** An integer in a query. */
export function queryInteger(options: { readonly min: number; readonly max: number }) {
  return z.preprocess(numberFromText, z.int().min(options.min).max(options.max));
}

/** An integer in a query that is moved into its range rather than refused. */
export function clampedQueryInteger(options: {
  readonly min: number;
  readonly max: number;
  readonly default: number;
}) {
  const clamp = (value: number): number => Math.min(options.max, Math.max(options.min, value));
  return z
    .preprocess(numberFromText, z.int())
    .optional()
    .transform((value) => clamp(value ?? options.default));
}

const MAX_LIST_VALUES = 20;

/** `true` or `false` in a query. */
export const QueryBoolean = z.preprocess(
  (value) => (value === "true" ? true : value === "false" ? false : value),
  z.boolean(),
);

/** Several values of one filter: the parameter repeated, or separated by commas. */
export function queryList<Item extends z.ZodType>(item: Item) {
  return z.preprocess(
    (value) => (typeof value === "string" ? value.split(",") : value),
    z.array(item).min(1).max(MAX_LIST_VALUES),
  );
}

/** Seconds that `?wait=` holds an answer; 0 does not wait. */
const MAX_WAIT_SECONDS = 60;
export const WaitSeconds = queryInteger({ min: 0, max: MAX_WAIT_SECONDS }).optional().meta({
  description: "Seconds to hold the answer until the operation ends; it never turns into an error.",
});

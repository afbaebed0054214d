import { createHash } from "node:crypto";
import { z } from "zod";
import { DroverError } from "../lib/errors.ts";
import { isUuid } from "../lib/ids.ts";
import { clampedQueryInteger, Timestamp } from "./schemas.ts";

/**
 * Keyset pages. A page token says where the last page ended: the values of the ordering columns of its last row.
 * It is bound to its list, its order and its filters, so that it cannot be used for another list by mistake.
 * It is no secret and grants nothing: rows are filtered by access on every page.
 */

const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 500;

/** Query parameters of every list: spread it into the route's `query`. */
export const pageQuery = {
  pageSize: clampedQueryInteger({ min: 1, max: MAX_PAGE_SIZE, default: DEFAULT_PAGE_SIZE }).meta({
    description: `Items on a page, moved into 1 to ${MAX_PAGE_SIZE}; ${DEFAULT_PAGE_SIZE} without.`,
  }),
  pageToken: z
    .string()
    .max(2048)
    .optional()
    .meta({ description: "`nextPageToken` of the page before, with the same filters and order." }),
};

/** The body of a list. Without a further page `nextPageToken` is left out. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({
    items: z.array(item),
    nextPageToken: z.string().optional().meta({ description: "Present when there is another page." }),
  });
}

export type SortDirection = "asc" | "desc";

/** An order such as `name` or `-createdAt`, taken apart. Ties are broken by the id, in the same direction. */
export interface OrderBy<Field extends string> {
  readonly field: Field;
  readonly direction: SortDirection;
}

/** `orderBy` of a list: one of `fields`, with `-` before it for the descending order. */
export function orderByQuery<const Field extends string>(
  fields: readonly Field[],
  defaultOrder: Field | `-${Field}`,
) {
  type Order = Field | `-${Field}`;
  const allowed = fields.flatMap((field): Order[] => [field, `-${field}`]);
  return z
    .enum(allowed)
    .optional()
    .transform((value): Order => value ?? defaultOrder)
    .meta({
      description: `A field; with \`-\` before it in descending order. Without it \`${defaultOrder}\`.`,
    });
}

/** Takes the value of an `orderByQuery` apart. */
export function parseOrderBy<Field extends string>(orderBy: Field | `-${Field}`): OrderBy<Field> {
  if (orderBy.startsWith("-")) return { field: orderBy.slice(1) as Field, direction: "desc" };
  return { field: orderBy as Field, direction: "asc" };
}

/** Where a page ended: the ordering column's value, and the id that breaks ties. */
export interface PageKey {
  readonly value: string | number | null;
  readonly id: string;
}

/** What a page token is bound to. `filters` is anything that JSON can write; keys in any order. */
export interface PageBinding {
  readonly list: string;
  readonly orderBy: string;
  readonly filters: Readonly<Record<string, unknown>>;
}

const VERSION = 1;
const TokenContent = z.tuple([
  z.literal(VERSION),
  z.string(),
  z.union([z.string(), z.number(), z.null()]),
  z.string(),
]);

/** Writes a page token. */
export function encodePageToken(binding: PageBinding, key: PageKey): string {
  const content = [VERSION, bindingHash(binding), key.value, key.id];
  return Buffer.from(JSON.stringify(content)).toString("base64url");
}

/** Reads a page token. Throws `invalid_request` for one that is broken, or of another list, order or filter. */
export function decodePageToken(binding: PageBinding, token: string): PageKey {
  const parsed = TokenContent.safeParse(parseToken(token));
  if (!parsed.success) throw wrongToken("is not one of ours");
  const [, hash, value, id] = parsed.data;
  if (hash !== bindingHash(binding)) throw wrongToken("belongs to another list, order or filter");
  return { value, id };
}

function parseToken(token: string): unknown {
  const bytes = Buffer.from(token, "base64url");
  // Buffer skips what is not base64url; only the canonical form is taken.
  if (bytes.toString("base64url") !== token) return null;
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}

function wrongToken(what: string): DroverError {
  const message = `${what}: begin again without pageToken`;
  return new DroverError("invalid_request", `The page token ${message}.`, {
    violations: [{ pointer: "pageToken", message }],
  });
}

/** 96 bits are plenty against mistakes; nothing is protected by it. */
function bindingHash({ list, orderBy, filters }: PageBinding): string {
  const sorted = Object.entries(filters)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify([list, orderBy, sorted]))
    .digest("base64url")
    .slice(0, 16);
}

export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken?: string | undefined;
}

/** What a store needs for one page: fetch `limit` rows after `after`, one more than are shown. */
export interface PageWindow {
  readonly after: PageKey | null;
  readonly limit: number;
}

/** The window of rows to fetch for a page. */
export function pageWindow(binding: PageBinding, request: PageRequest): PageWindow {
  const after = request.pageToken === undefined ? null : decodePageToken(binding, request.pageToken);
  return { after, limit: request.pageSize + 1 };
}

/** Makes the page of the rows fetched for a `pageWindow`: the one too many only says that there is another page. */
export function toPage<Row, Item>(
  binding: PageBinding,
  request: PageRequest,
  rows: readonly Row[],
  keyOf: (row: Row) => PageKey,
  toItem: (row: Row) => Item,
): { items: Item[]; nextPageToken?: string } {
  const shown = rows.slice(0, request.pageSize);
  const items = shown.map(toItem);
  const last = shown.at(-1);
  if (rows.length <= request.pageSize || last === undefined) return { items };
  return { items, nextPageToken: encodePageToken(binding, keyOf(last)) };
}

/** Refuses a page token that was made up: its key must be a time and an id before a database is asked with it. */
export function requireTimeKey(window: PageWindow): PageWindow {
  const { after } = window;
  if (after === null) return window;
  const time = Timestamp.safeParse(after.value);
  if (!time.success || Number.isNaN(Date.parse(time.data)) || !isUuid(after.id))
    throw wrongToken("is not one of ours");
  return window;
}

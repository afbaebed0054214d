import { Prisma } from "./generated/client.ts";

/** What lists are ordered by. */
export type KeysetField = "name" | "createdAt";

export interface KeysetOrder {
  readonly field: KeysetField;
  readonly direction: "asc" | "desc";
}

/** Where a page begins: behind the last one's ordering value and id, or at the start. And how long it is. */
export interface KeysetPage {
  readonly after: { readonly value: string; readonly id: string } | null;
  readonly limit: number;
}

const FIELDS = {
  name: { column: Prisma.sql`name`, cast: Prisma.empty },
  createdAt: { column: Prisma.sql`created_at`, cast: Prisma.sql`::timestamptz` },
} as const;

const DIRECTIONS = {
  asc: { order: Prisma.sql`ASC`, beyond: Prisma.sql`>` },
  desc: { order: Prisma.sql`DESC`, beyond: Prisma.sql`<` },
} as const;

/**
 * A SELECT from WHERE on, for one page of a table's rows in keyset order; the id breaks ties. `table` is what the statement
 * calls the table, such as `Prisma.sql\`v\``.
 */
export function keysetPage(
  table: Prisma.Sql,
  conditions: readonly Prisma.Sql[],
  { field, direction }: KeysetOrder,
  { after, limit }: KeysetPage,
): Prisma.Sql {
  const { cast } = FIELDS[field];
  const { order, beyond } = DIRECTIONS[direction];
  const column = Prisma.sql`${table}.${FIELDS[field].column}`;
  const behind =
    after === null
      ? []
      : [Prisma.sql`(${column}, ${table}.id) ${beyond} (${after.value}${cast}, ${after.id}::uuid)`];
  return Prisma.sql`WHERE ${Prisma.join([...conditions, ...behind], " AND ")}
    ORDER BY ${column} ${order}, ${table}.id ${order} LIMIT ${limit}`;
}

import pg from "pg";
import { Prisma } from "./generated/client.ts";

/** Anything that statements can be sent to, written as templates (`Prisma.sql`): values become parameters. */
export interface Sql {
  $queryRaw<T = unknown>(query: Template, ...values: readonly unknown[]): Promise<T>;
  /** Resolves to the number of rows that were touched. */
  $executeRaw(query: Template, ...values: readonly unknown[]): Promise<number>;
}

type Template = TemplateStringsArray | Prisma.Sql;

/** A statement on its way to the server. */
export type Statement = pg.QueryConfig;

// Enough for every statement of the program; those that vary with their input beyond it are sent unprepared.
const MOST_PREPARED = 250;
const names = new Map<string, string>();

/** The name under which each connection keeps the statement prepared: parsed and planned once. */
export function statementName(text: string): string | undefined {
  const known = names.get(text);
  if (known !== undefined || names.size >= MOST_PREPARED) return known;
  const name = `drover_${names.size}`;
  names.set(text, name);
  return name;
}

const { INT8 } = pg.types.builtins;

// As the models have it: a 64-bit integer is a bigint; pg's own default is text.
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) => (oid === INT8 ? BigInt : (pg.types.getTypeParser(oid, format) as unknown)),
};

function statementOf(query: Template, values: readonly unknown[]): Statement {
  const sql = query instanceof Prisma.Sql ? query : Prisma.sql(query, ...(values as Prisma.Sql["values"]));
  const { text } = sql;
  const name = statementName(text);
  return { text, values: sql.values, types, ...(name === undefined ? {} : { name }) };
}

/** `$queryRaw` and `$executeRaw` over whatever sends statements. */
export function sqlOver(send: (statement: Statement) => Promise<pg.QueryResult>): Sql {
  return {
    async $queryRaw<T>(query: Template, ...values: readonly unknown[]): Promise<T> {
      const { rows } = await send(statementOf(query, values));
      // What the columns are, whoever wrote the statement says.
      return rows as T;
    },
    async $executeRaw(query, ...values) {
      return (await send(statementOf(query, values))).rowCount ?? 0;
    },
  };
}

/**
 * Waits for statements of one transaction that were sent without waiting for one another: they run in the order in which
 * they were sent. Of several failures the first in this order is thrown: those behind it only say that the transaction
 * was broken off.
 */
export async function sentTogether<const Work extends readonly Promise<unknown>[]>(
  ...work: Work
): Promise<{ -readonly [Index in keyof Work]: Awaited<Work[Index]> }> {
  const outcomes = await Promise.allSettled(work);
  const values = outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
  return values as { -readonly [Index in keyof Work]: Awaited<Work[Index]> };
}

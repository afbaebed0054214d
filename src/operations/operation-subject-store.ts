import type { Sql, Tx } from "../db/transaction.ts";
import { DroverError } from "../lib/errors.ts";
import type { OperationId } from "../lib/ids.ts";
import type { Subject } from "./operation-kind.ts";
import { unclaimed } from "./operation-sql.ts";

/** The ids of the unfinished operations of each of these subjects, oldest first. */
export async function unfinishedOperationsOf(
  db: Sql,
  kind: Subject["kind"],
  ids: readonly string[],
): Promise<Map<string, string[]>> {
  const rows = await db.$queryRaw<{ subject_id: string; operation_id: string }[]>`
    SELECT subject_id, operation_id FROM operation_subject
    WHERE kind = ${kind} AND subject_id = ANY(${[...ids]}::uuid[]) AND unfinished ORDER BY seq`;
  const found = new Map<string, string[]>();
  for (const row of rows) {
    const list = found.get(row.subject_id) ?? [];
    list.push(row.operation_id);
    found.set(row.subject_id, list);
  }
  return found;
}

/** Takes an operation from whoever runs it: its next write finds itself fenced. */
export async function releaseClaim(tx: Tx, id: OperationId): Promise<void> {
  await tx.$executeRaw`UPDATE operation SET ${unclaimed} WHERE id = ${id}::uuid AND ended_at IS NULL`;
}

/** The subjects of an operation. Throws `not_found`. */
export async function subjectsOf(db: Sql, id: OperationId): Promise<Subject[]> {
  const rows = await db.$queryRaw<Subject[]>`
    SELECT kind, subject_id AS id, mode FROM operation_subject WHERE operation_id = ${id}::uuid`;
  if (rows.length === 0) throw new DroverError("not_found", `There is no operation ${id}.`);
  return rows;
}

import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type OperationId } from "../lib/ids.ts";
import { cancelUnfinished } from "./operation-cancel.ts";
import type { Subject } from "./operation-kind.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { subjectRows } from "./operation-sql.ts";

/**
 * Every subject of the unfinished operations on these exclusive subjects. An operation that overtakes ends others,
 * so it locks their lanes together with its own, in one order. One queued between this and the lock is ended too;
 * what waited for it in a lane that is not locked is then promoted by the sweeper.
 */
export async function laneNeighbours(tx: Tx, subjects: readonly Subject[]): Promise<Subject[]> {
  const exclusive = subjects.filter((subject) => subject.mode === "exclusive");
  return await tx.$queryRaw<Subject[]>`
    SELECT DISTINCT n.kind, n.subject_id AS id, n.mode FROM ${subjectRows(exclusive)}
    JOIN operation_subject v ON v.kind = s.kind AND v.subject_id = s.subject_id AND v.unfinished
    JOIN operation_subject n ON n.operation_id = v.operation_id`;
}

export interface Overtaker {
  readonly rank: number;
  readonly subjects: readonly Subject[];
  readonly by: { readonly kind: { readonly name: string } };
}

/**
 * Cancels what is queued on the overtaker's exclusive subjects with a lower rank, and asks what runs there to
 * cancel, save what goes forward only and has begun. The lanes must be locked.
 */
export async function cancelOvertaken(
  tx: Tx,
  kinds: KindRegistry,
  { rank, subjects, by }: Overtaker,
): Promise<void> {
  const exclusive = subjects.filter((subject) => subject.mode === "exclusive");
  if (exclusive.length === 0) return;
  const overtaken = await tx.$queryRaw<{ id: string }[]>`
    SELECT o.id FROM operation o
    WHERE o.ended_at IS NULL AND o.overtakes < ${rank}::int AND ${onSubjects(exclusive)}
    ORDER BY o.seq FOR UPDATE`;
  const reason = new DroverError("superseded", `The operation was overtaken by ${by.kind.name}.`);
  for (const { id } of overtaken)
    await cancelUnfinished(tx, kinds, asId<OperationId>(id), reason, "overtake");
}

function onSubjects(subjects: readonly Subject[]): Prisma.Sql {
  return Prisma.sql`o.id IN (
    SELECT v.operation_id FROM ${subjectRows(subjects)}
    JOIN operation_subject v ON v.kind = s.kind AND v.subject_id = s.subject_id AND v.unfinished)`;
}

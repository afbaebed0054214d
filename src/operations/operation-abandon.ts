import type { Tx } from "../db/transaction.ts";
import { asId, type OperationId } from "../lib/ids.ts";
import { contextOf, endOperation, lockOperation, readSnapshot } from "./operation-end.ts";
import type { OperationOutcome, Subject } from "./operation-kind.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { lockSubjects } from "./operation-lanes.ts";
import { releaseClaim, subjectsOf, unfinishedOperationsOf } from "./operation-subject-store.ts";

/** How operations end whose host is taken out of the inventory: whoever runs one is fenced by it. */

export interface LockedOperation {
  readonly id: OperationId;
  readonly subjects: readonly Subject[];
}

/**
 * Finds the unfinished operations of these subjects and locks their lanes, then their rows, until the transaction
 * ends. In the order of all locks: call it before rows of features are locked.
 */
export async function lockUnfinished(
  tx: Tx,
  kind: Subject["kind"],
  ids: readonly string[],
): Promise<LockedOperation[]> {
  const found = await unfinishedOperationsOf(tx, kind, ids);
  const operations: LockedOperation[] = [];
  for (const id of [...found.values()].flat().map((text) => asId<OperationId>(text)))
    operations.push({ id, subjects: await subjectsOf(tx, id) });
  const own = ids.map((id) => ({ kind, id, mode: "exclusive" as const }));
  await lockSubjects(tx, [...own, ...operations.flatMap(({ subjects }) => subjects)]);
  for (const { id } of operations) await lockOperation(tx, id);
  return operations;
}

/** Ends locked operations as they stand, whoever runs them; compensates nothing. */
export async function endLocked(
  tx: Tx,
  kinds: KindRegistry,
  operations: readonly LockedOperation[],
  outcome: OperationOutcome,
): Promise<void> {
  for (const { id, subjects } of operations) {
    await releaseClaim(tx, id);
    const now = await readSnapshot(tx, id);
    if (now === null || now.ended) continue;
    await endOperation(tx, kinds, contextOf(kinds, now), { outcome, subjects, claim: null });
  }
}

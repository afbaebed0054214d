import type { CrashPoint } from "../../src/operations/crash-points.ts";
import type { Cell } from "./cells.ts";

// Who is held there keeps a transaction open, and so one of the service's connections.
const IN_TRANSACTION: ReadonlySet<CrashPoint> = new Set([
  "enqueue.written",
  "record.written",
  "undoRecord.written",
  "end.written",
]);
const MOST_IN_TRANSACTION = 8;

/** Splits cells into those that one kill meets together. Who waits for his claim holds everybody else up. */
export function groupsOf(cells: readonly Cell[], size: number): Cell[][] {
  const unclaimed = cells.filter(({ point }) => point === "claim.before");
  const groups: Cell[][] = [];
  for (const cell of cells) {
    if (cell.point === "claim.before") continue;
    const group = groups.find((candidate) => hasRoom(candidate, cell, size));
    if (group === undefined) groups.push([cell]);
    else group.push(cell);
  }
  while (unclaimed.length > 0) groups.push(unclaimed.splice(0, size));
  return groups;
}

function hasRoom(group: readonly Cell[], cell: Cell, size: number): boolean {
  if (group.length >= size) return false;
  if (!IN_TRANSACTION.has(cell.point)) return true;
  return group.filter(({ point }) => IN_TRANSACTION.has(point)).length < MOST_IN_TRANSACTION;
}

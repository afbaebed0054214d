import { createHash } from "node:crypto";
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
/** A worker runs no more at once that are on no host: images come to it without one, and networks go. */
export const MOST_WITHOUT_HOST = 16;

/** Splits cells into those that one kill meets together. Who waits for his claim holds everybody else up. */
export function groupsOf(cells: readonly Cell[], size: number): Cell[][] {
  const isUnclaimed = ({ point }: Cell): boolean => point === "claim.before";
  const claimed = cells.filter((cell) => !isUnclaimed(cell));
  return [...gathered(claimed, size), ...gathered(cells.filter(isUnclaimed), size)];
}

function gathered(cells: readonly Cell[], size: number): Cell[][] {
  const groups: Cell[][] = [];
  for (const cell of cells) {
    const group = groups.find((candidate) => hasRoom(candidate, cell, size));
    if (group === undefined) groups.push([cell]);
    else group.push(cell);
  }
  return groups;
}

function hasRoom(group: readonly Cell[], cell: Cell, size: number): boolean {
  if (group.length >= size) return false;
  // Which operation of a kind comes to which point is left to chance: they must all have the same steps.
  if (group.some(({ kind, scene }) => kind === cell.kind && scene !== cell.scene)) return false;
  if (isWithoutHost(cell) && group.filter(isWithoutHost).length >= MOST_WITHOUT_HOST) return false;
  if (!IN_TRANSACTION.has(cell.point)) return true;
  return group.filter(({ point }) => IN_TRANSACTION.has(point)).length < MOST_IN_TRANSACTION;
}

function isWithoutHost({ kind }: Cell): boolean {
  return kind.startsWith("image.") || kind === "network.delete";
}

/** A part of the matrix, drawn by the seed, in which every point and every step of every kind occurs. */
export function partOf(cells: readonly Cell[], seed: number): Cell[] {
  const missing = new Set(cells.flatMap(traitsOf));
  const part: Cell[] = [];
  for (const cell of shuffled(cells, seed)) {
    const traits = traitsOf(cell).filter((trait) => missing.has(trait));
    if (traits.length === 0) continue;
    for (const trait of traits) missing.delete(trait);
    part.push(cell);
  }
  return part;
}

function traitsOf({ kind, step, point }: Cell): string[] {
  return [point, `${kind} ${step ?? ""}`];
}

/** In an order that the seed fixes. */
function shuffled(cells: readonly Cell[], seed: number): Cell[] {
  const placeOf = ({ id }: Cell): string => createHash("sha256").update(`${seed} ${id}`).digest("hex");
  return cells.toSorted((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
}

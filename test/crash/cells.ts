import { CRASH_POINTS, type CrashPoint } from "../../src/operations/crash-points.ts";
import type { AnyOperationKind, Step } from "../../src/operations/operation-kind.ts";
import { isForwardOnly, type KindRegistry } from "../../src/operations/operation-kinds.ts";
import type { OperationState } from "../../src/operations/operation-state.ts";
import type { Hold } from "./gate.ts";

/**
 * The crash matrix, derived from the registry of operation kinds and the list of crash points: every kind, every
 * step, every point, on the way forward and on both ways back. What cannot be reached is told apart, with the reason.
 */

export const FAULTS = ["none", "failure", "cancel"] as const;
export type Fault = (typeof FAULTS)[number];

/** One kill: where it comes, and how the operation must have ended after the restart. */
export interface Cell extends Hold {
  /** By which the operation comes about. */
  readonly scene: string;
  readonly expected: OperationState;
  /** Whether what it did is taken back when it does not succeed. */
  readonly undoes: boolean;
}

/** A combination that does not exist. */
export interface Absent {
  readonly id: string;
  readonly reason: string;
}

export interface Matrix {
  readonly cells: readonly Cell[];
  readonly absent: readonly Absent[];
}

type Stage = "queue" | "step" | "decision" | "undo" | "end";

/** Where a point lies; points of the stages "step" and "undo" are met once for each step. */
const STAGES: Readonly<Record<CrashPoint, Stage>> = {
  "enqueue.written": "queue",
  "claim.before": "queue",
  "claim.committed": "queue",
  "begin.before": "queue",
  "begin.committed": "step",
  "find.before": "step",
  "find.after": "step",
  "found.committed": "step",
  "run.before": "step",
  "run.after": "step",
  "record.written": "step",
  "record.committed": "step",
  "undoDecision.before": "decision",
  "undoDecision.committed": "decision",
  "undo.before": "undo",
  "undo.after": "undo",
  "undoRecord.written": "undo",
  "undoRecord.committed": "undo",
  "end.written": "end",
  "end.committed": "end",
};

/** A kind in one of its scenes under one fault, with the input that its operation will have. */
interface Case {
  readonly kind: AnyOperationKind;
  readonly scene: string;
  readonly fault: Fault;
  readonly forwardOnly: boolean;
  /** Without those that the input leaves out. */
  readonly active: readonly Step<unknown>[];
  /** Steps that have begun when it turns back and have something to undo. */
  readonly undoable: readonly Step<unknown>[];
}

export interface NamedInput {
  readonly scene: string;
  readonly input: unknown;
}

export function matrixOf(kinds: KindRegistry, inputsOf: (kind: string) => readonly NamedInput[]): Matrix {
  const cells: Cell[] = [];
  const absent: Absent[] = [];
  for (const kind of kinds.names.map((name) => kinds.get(name))) {
    for (const named of inputsOf(kind.name)) {
      for (const fault of FAULTS) {
        const at = caseOf(kind, named, fault);
        for (const { point, step } of sites(kind)) {
          const id = [named.scene, fault, step?.name, point].filter((part) => part !== undefined).join(" ");
          const reason = whyAbsent(at, point, step);
          if (reason === null) cells.push(cellOf(at, point, step, id));
          else absent.push({ id, reason });
        }
      }
    }
  }
  return { cells, absent };
}

interface Site {
  readonly point: CrashPoint;
  readonly step: Step<unknown> | null;
}

function sites(kind: AnyOperationKind): Site[] {
  return CRASH_POINTS.flatMap((point): Site[] =>
    STAGES[point] === "step" || STAGES[point] === "undo"
      ? kind.steps.map((step) => ({ point, step }))
      : [{ point, step: null }],
  );
}

function caseOf(kind: AnyOperationKind, { scene, input }: NamedInput, fault: Fault): Case {
  const active = kind.steps.filter((step) => step.skip?.(input) !== true);
  const begun = fault === "cancel" ? active.slice(0, -1) : active;
  const undoable = begun.filter((step) => step.undo !== undefined || step.recordUndo !== undefined);
  return { kind, scene, fault, forwardOnly: isForwardOnly(kind, input), active, undoable };
}

function whyAbsent(at: Case, point: CrashPoint, step: Step<unknown> | null): string | null {
  const stage = STAGES[point];
  if (step !== null && !at.active.includes(step)) return "the step is left out for this input";
  if (at.fault === "none") {
    if (stage === "decision" || stage === "undo") return "nothing goes wrong, so nothing is undone";
  } else if (stage === "queue" || stage === "step") return "the same as without the fault, which comes later";
  if (at.fault === "cancel") {
    if (at.forwardOnly) return "it goes forward only and cannot be cancelled";
    if (at.active.length < 2) return "the cancel comes with the step before the last, and there is one step";
  }
  if (stage === "decision" || stage === "undo") return whyNotUndone(at, point, step);
  return stage === "step" && step !== null ? whyNotMet(at, point, step) : null;
}

function whyNotUndone(at: Case, point: CrashPoint, step: Step<unknown> | null): string | null {
  if (at.forwardOnly) return "it goes forward only: nothing is undone";
  if (at.undoable.length === 0) return "no step that has begun has an undo";
  if (step === null) return null;
  if (!at.undoable.includes(step)) {
    const hasUndo = step.undo !== undefined || step.recordUndo !== undefined;
    return hasUndo ? "the step had not begun when the operation was cancelled" : "the step has no undo";
  }
  const acts = point === "undo.before" || point === "undo.after";
  return acts && step.undo === undefined ? "the step's undo only records" : null;
}

function whyNotMet(at: Case, point: CrashPoint, step: Step<unknown>): string | null {
  const looks = point === "find.before" || point === "find.after" || point === "found.committed";
  if (looks && step.find === undefined) return "the step looks for nothing before it acts";
  const records = point === "record.written" || point === "record.committed";
  if (records && step === at.active.at(-1)) return "the last step's record commits with the operation's end";
  if (point === "record.written" && step.record === undefined)
    return "the step's record is a single statement: there is nothing between its writing and its commit";
  return null;
}

function cellOf(at: Case, point: CrashPoint, step: Step<unknown> | null, id: string): Cell {
  const afterStep = at.active.at(at.fault === "cancel" ? -2 : -1)?.name;
  const fault = at.fault === "none" || afterStep === undefined ? null : { what: at.fault, afterStep };
  return {
    ...{ id, point, fault },
    kind: at.kind.name,
    scene: at.scene,
    step: step?.name ?? null,
    expected: endOf(at, point),
    undoes: at.undoable.length > 0,
  };
}

/** A failure that was not recorded is forgotten with the process; a cancel is kept from when it was asked for. */
function endOf({ fault, undoable, forwardOnly, active }: Case, point: CrashPoint): OperationState {
  if (fault === "none") return "succeeded";
  if (fault === "cancel") return "cancelled";
  const forgotten =
    undoable.length === 0 || forwardOnly ? point === "end.written" : point === "undoDecision.before";
  if (forgotten) return "succeeded";
  // The only step that fails is the first one, which is said to have done nothing then.
  return forwardOnly && active.length > 1 ? "attention" : "failed";
}

/**
 * The instants around every commit and every effect at which a process can die. Named here, so that the crash
 * matrix is derived from this list and fails when a point was never reached.
 */
export const CRASH_POINTS = [
  "enqueue.written",
  "claim.before",
  "claim.committed",
  "begin.before",
  "begin.committed",
  "find.before",
  "find.after",
  "found.committed",
  "run.before",
  "run.after",
  "record.written",
  "record.committed",
  "undoDecision.before",
  "undoDecision.committed",
  "undo.before",
  "undo.after",
  "undoRecord.written",
  "undoRecord.committed",
  "end.written",
  "end.committed",
] as const;
export type CrashPoint = (typeof CRASH_POINTS)[number];

export interface CrashSite {
  readonly operationId: string | null;
  readonly kind: string | null;
  readonly step: string | null;
}

/** Called at each point; does nothing unless a harness says otherwise. */
export type CrashProbe = (point: CrashPoint, site: CrashSite) => void | Promise<void>;

export const noProbe: CrashProbe = () => undefined;

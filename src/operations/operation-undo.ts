import { type DroverError, toErrorBody } from "../lib/errors.ts";
import { backoffMs, HOST_BACKOFF, STEP_BACKOFF } from "./operation-backoff.ts";
import type { RecordedStep } from "./operation-claim.ts";
import { attempt, heldTransaction } from "./operation-context.ts";
import { Fenced, isBug, operationError } from "./operation-errors.ts";
import { finishAttention, finishTurned } from "./operation-finish.ts";
import type { Step } from "./operation-kind.ts";
import type { Run } from "./operation-run.ts";
import { undoOrder } from "./operation-state.ts";
import { beginUndo, decideUndo, recordUndone, release } from "./operation-steps-store.ts";
import { judge } from "./operation-verdict.ts";

/** Steps of which something may have to be taken back, the last one first. */
export function undoable(run: Run): { readonly step: Step<unknown>; readonly recorded: RecordedStep }[] {
  return undoOrder([...run.recorded.values()]).flatMap((recorded) => {
    const step = run.steps[recorded.position];
    if (step === undefined || step.skip?.(run.operation.input) === true) return [];
    return step.undo === undefined && step.recordUndo === undefined ? [] : [{ step, recorded }];
  });
}

/** Records the decision to go back, then goes back. */
export async function turnAround(run: Run, error: DroverError, failedPosition: number | null): Promise<void> {
  await run.probe("undoDecision.before");
  const { undoSeconds } = run.deps;
  await decideUndo(run.deps.db, run.claim, { failedPosition, error: toErrorBody(error), undoSeconds });
  await run.probe("undoDecision.committed");
  await undoAll(run, error, undoSeconds * 1000);
}

/**
 * Undoes what is not undone yet, each step on the host that it ran on, and ends the operation. `leftMs` is how long
 * it may still be tried.
 */
export async function undoAll(run: Run, error: DroverError, leftMs: number): Promise<void> {
  const until = performance.now() + leftMs;
  for (const { step, recorded } of undoable(run)) {
    const { hostId } = recorded;
    if (run.draining) {
      await letGo(run, 0);
      return;
    }
    if (hostId !== null && hostId !== run.hostId) {
      await letGo(run, 0, hostId);
      return;
    }
    try {
      await undoStep(run, step, recorded);
    } catch (failure) {
      await undoFailed(run, { step, recorded, failure, error, timeIsUp: performance.now() >= until });
      return;
    }
  }
  const state = error.code === "cancelled" || error.code === "superseded" ? "cancelled" : "failed";
  await finishTurned(run, { state, error, undone: true, failedPosition: null });
}

async function undoStep(run: Run, step: Step<unknown>, recorded: RecordedStep): Promise<void> {
  const { deps, claim, operation } = run;
  const { position, found, hostId } = recorded;
  await beginUndo(deps.db, claim, position);
  const undo = step.undo;
  // Without the record of what it found the step never acted.
  if (undo !== undefined && (step.find === undefined || found !== null)) {
    await run.probe("undo.before", step.name);
    const site = { position, hostId, resumed: recorded.undoAttempts > 0, direction: "backward" } as const;
    await attempt(run, step, site, (context) => undo({ ...context, found }));
    await run.probe("undo.after", step.name);
  }
  await heldTransaction(deps.db, run, async (tx) => {
    await recordUndone(tx, claim, position);
    await step.recordUndo?.(tx, operation);
    await run.probe("undoRecord.written", step.name);
  });
  run.recorded.set(position, { ...recorded, state: "undone" });
  await run.probe("undoRecord.committed", step.name);
}

interface UndoFailure {
  readonly step: Step<unknown>;
  readonly recorded: RecordedStep;
  readonly failure: unknown;
  readonly error: DroverError;
  readonly timeIsUp: boolean;
}

async function undoFailed(
  run: Run,
  { step, recorded, failure, error, timeIsUp }: UndoFailure,
): Promise<void> {
  const { deps, id } = run;
  const attempts = recorded.undoAttempts + 1;
  // A cancel or the deadline does not stop an undo: it has a limit of its own.
  const stop = run.stop === "drain" || run.stop === "lost" ? run.stop : null;
  const verdict = judge({ error: failure, stop, attempts, maxAttempts: Number.POSITIVE_INFINITY });
  if (verdict === "drop") throw failure instanceof Fenced ? failure : new Fenced();
  const shown = operationError(failure);
  const facts = { operationId: id, step: step.name, err: failure };
  if (verdict === "final" || (timeIsUp && verdict !== "release")) {
    deps.logger.error(
      facts,
      isBug(failure) ? "an undo failed by a mistake of ours" : "an undo failed for good",
    );
    await finishAttention(run, error, { position: recorded.position, name: step.name, error: shown });
    return;
  }
  deps.logger.warn(facts, "an undo failed; it is tried again");
  const pauseMs =
    verdict === "retry"
      ? backoffMs(attempts, Math.random(), STEP_BACKOFF)
      : backoffMs(1, Math.random(), HOST_BACKOFF);
  const waits = verdict === "release" ? null : toErrorBody(shown);
  await release(deps.db, run.claim, {
    pauseMs: verdict === "release" && run.draining ? 0 : pauseMs,
    waitReason: waits,
    countsAsAttempt: verdict === "retry",
    step: { position: recorded.position, undo: true, error: waits },
  });
  run.close();
}

/** Gives the claim up between two steps. */
export async function letGo(run: Run, pauseMs: number, moveTo?: Run["hostId"]): Promise<void> {
  await release(run.deps.db, run.claim, {
    pauseMs,
    waitReason: null,
    countsAsAttempt: false,
    step: null,
    ...(moveTo === undefined ? {} : { moveTo: { hostId: moveTo } }),
  });
  run.close();
}

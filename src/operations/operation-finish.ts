import { sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import { DroverError, type ErrorBody, toErrorBody } from "../lib/errors.ts";
import type { JsonObject } from "../lib/json.ts";
import { type Ending, endOperation } from "./operation-end.ts";
import { attentionError, Fenced } from "./operation-errors.ts";
import { lockSubjects } from "./operation-lanes.ts";
import type { Run } from "./operation-run.ts";
import { advance, recordStepFailure, type StepName, stepWrites } from "./operation-steps-store.ts";

/** How a run ends: each in one transaction, with the operation's lanes locked first. */

export interface LastSteps {
  readonly done?: { readonly position: number; readonly result: JsonObject | undefined };
  readonly skipped: readonly StepName[];
}

/** Ends the operation as succeeded, together with the record of its last step. */
export async function finishSucceeded(run: Run, last: LastSteps): Promise<void> {
  const { done, skipped } = last;
  const step = done === undefined ? undefined : run.steps[done.position];
  const over = { done: done && { ...done, writes: step?.write?.(run.operation, done.result) }, skipped };
  const ending = { outcome: { state: "succeeded" }, result: resultOf(run, last) } as const;
  const record = step?.record;
  // Without statements of the step's own between them, the record and the end are one statement.
  if (record === undefined) await finish(run, { ...ending, steps: stepWrites(over) });
  else
    await finish(run, ending, async (tx) => {
      await advance(tx, run.claim, over);
      await record(tx, run.operation, done?.result);
    });
}

export interface Turned {
  readonly state: "failed" | "cancelled" | "attention";
  readonly error: DroverError;
  readonly undone: boolean;
  /** The step that failed, where nothing was undone. */
  readonly failedPosition: number | null;
}

/** Ends the operation without success. */
export async function finishTurned(
  run: Run,
  { state, error, undone, failedPosition }: Turned,
): Promise<void> {
  await finish(run, { outcome: { state, error, undone } }, async (tx) => {
    if (failedPosition === null) return;
    await recordStepFailure(tx, run.claim, failedPosition, { undo: false, error: toErrorBody(error) });
  });
}

/** Ends the operation as needing attention: the undo of a step failed. Its own error is kept for a retry. */
export async function finishAttention(
  run: Run,
  original: DroverError,
  failed: StepName & { readonly error: DroverError },
): Promise<void> {
  const outcome = {
    state: "attention",
    error: attentionError(original, failed.name, failed.error),
    undone: false,
  } as const;
  const kept = toErrorBody(original) as unknown as JsonObject;
  await finish(run, { outcome, keptError: kept }, (tx) =>
    recordStepFailure(tx, run.claim, failed.position, { undo: true, error: toErrorBody(failed.error) }),
  );
}

async function finish(
  run: Run,
  ending: Omit<Ending, "subjects" | "claim">,
  first: (tx: Tx) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const { deps, claim, claimed, operation } = run;
  const { subjects } = claimed;
  await deps.db.transaction(async (tx) => {
    // Sent together: the second begins when the first has its locks.
    await sentTogether(lockSubjects(tx, subjects), first(tx));
    if (!(await endOperation(tx, deps.kinds, operation, { ...ending, subjects, claim }))) throw new Fenced();
    await run.probe("end.written");
    if (!deps.lease.isHeld()) throw new Fenced("the worker's lease is over");
  });
  run.close();
  await run.probe("end.committed");
}

/** What the operation gives back: the result of the last step that has one. */
function resultOf(run: Run, { done }: LastSteps): JsonObject | null {
  if (done?.result !== undefined) return done.result;
  return (
    [...run.recorded.values()].toSorted((a, b) => b.position - a.position).find((step) => step.result)
      ?.result ?? null
  );
}

/** An error body read back from the database. */
export function errorOf(body: ErrorBody | null, fallback: DroverError): DroverError {
  if (body === null) return fallback;
  return new DroverError(body.code, body.message, {
    retry: body.retry,
    ...(body.details === undefined ? {} : { details: body.details }),
  });
}

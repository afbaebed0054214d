import { sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import { DroverError, type ErrorBody, toErrorBody } from "../lib/errors.ts";
import type { JsonObject } from "../lib/json.ts";
import { endOperation } from "./operation-end.ts";
import { attentionError, Fenced } from "./operation-errors.ts";
import type { OperationOutcome } from "./operation-kind.ts";
import { lockSubjects } from "./operation-lanes.ts";
import type { Run } from "./operation-run.ts";
import { advance, recordStepFailure, type StepName } from "./operation-steps-store.ts";

/** How a run ends: each in one transaction, with the operation's lanes locked first. */

export interface LastSteps {
  readonly done?: { readonly position: number; readonly result: JsonObject | undefined };
  readonly skipped: readonly StepName[];
}

/** Ends the operation as succeeded, together with the record of its last step. */
export async function finishSucceeded(run: Run, last: LastSteps): Promise<void> {
  await finish(run, { state: "succeeded" }, resultOf(run, last), async (tx) => {
    if (last.done === undefined && last.skipped.length === 0) return;
    const { done, skipped } = last;
    const step = done === undefined ? undefined : run.steps[done.position];
    const writes = step?.write?.(run.operation, done?.result);
    await advance(tx, run.claim, { done: done && { ...done, writes }, skipped });
    if (done !== undefined) await step?.record?.(tx, run.operation, done.result);
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
  await finish(run, { state, error, undone }, null, async (tx) => {
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
  await finish(
    run,
    outcome,
    null,
    (tx) =>
      recordStepFailure(tx, run.claim, failed.position, { undo: true, error: toErrorBody(failed.error) }),
    kept,
  );
}

async function finish(
  run: Run,
  outcome: OperationOutcome,
  result: JsonObject | null,
  first: (tx: Tx) => Promise<void>,
  keptError?: JsonObject,
): Promise<void> {
  const { deps, claim, claimed, operation } = run;
  const { subjects } = claimed;
  await deps.db.transaction(async (tx) => {
    // Sent together: the second begins when the first has its locks.
    await sentTogether(lockSubjects(tx, subjects), first(tx));
    const ending = { outcome, result, subjects, claim, ...(keptError === undefined ? {} : { keptError }) };
    if (!(await endOperation(tx, deps.kinds, operation, ending))) throw new Fenced();
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

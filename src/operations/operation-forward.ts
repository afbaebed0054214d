import type { Sql, Tx } from "../db/transaction.ts";
import { DroverError, toErrorBody } from "../lib/errors.ts";
import type { HostId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import { backoffMs, HOST_BACKOFF, STEP_BACKOFF } from "./operation-backoff.ts";
import { attempt, heldTransaction } from "./operation-context.ts";
import { deadlineError, Fenced, isBug, operationError } from "./operation-errors.ts";
import { errorOf, finishSucceeded, finishTurned } from "./operation-finish.ts";
import type { Admission, Step } from "./operation-kind.ts";
import type { Run } from "./operation-run.ts";
import { firstOpen } from "./operation-state.ts";
import { advance, type DoneStep, recordFound, release, type StepName } from "./operation-steps-store.ts";
import { letGo, turnAround, undoAll, undoable } from "./operation-undo.ts";
import { judge } from "./operation-verdict.ts";

const DEFAULT_MAX_ATTEMPTS = 5;
// Long enough for a paused lease or database to come back, short enough not to be noticed.
const RELEASE_PAUSE_MS = 300;

/** A step that has begun under this claim. */
interface Begun {
  readonly position: number;
  readonly step: Step<unknown>;
  readonly hostId: HostId | null;
  readonly attempts: number;
  readonly found: JsonObject | null;
  readonly resumed: boolean;
}

/** Runs a claimed operation until it ends, waits, or belongs to another worker. Throws `Fenced` when it was lost. */
export async function execute(run: Run): Promise<void> {
  const { claimed } = run;
  if (claimed.undoing) {
    const error = errorOf(claimed.error, new DroverError("internal", "The operation failed."));
    await undoAll(run, error, claimed.undo_deadline_ms ?? run.deps.undoSeconds * 1000);
    return;
  }
  if (claimed.deadline_ms <= 0) run.interrupt("deadline");
  run.watchDeadline();
  let begun = run.stop === null ? await beginFirst(run) : await turnBack(run, null, null);
  while (begun !== null) begun = await runStep(run, begun);
}

/** Where a run goes on: the step, and those before it that are left out; no step: all are done. */
function plan(
  run: Run,
  from: number,
): {
  readonly skipped: StepName[];
  readonly next: { readonly position: number; readonly step: Step<unknown> } | null;
} {
  const skipped: StepName[] = [];
  for (let position = from; ; position++) {
    const step = run.steps[position];
    if (step === undefined) return { skipped, next: null };
    if (step.skip?.(run.operation.input) !== true) return { skipped, next: { position, step } };
    skipped.push({ position, name: step.name });
  }
}

async function beginFirst(run: Run): Promise<Begun | null> {
  const from = firstOpen([...run.recorded.values()]);
  const { admit } = run.kind;
  await run.probe("begin.before");
  if (admit === undefined || run.recorded.size > 0) return await go(run, from, run.deps.db);
  // The claim is proved by the record of the first step, or of the end: this only reads.
  const { admission, begun } = await run.deps.db.transaction(async (tx) => {
    const answer = await admit(tx, run.operation);
    return { admission: answer, begun: answer.kind === "run" ? await beginNext(tx, run, from) : null };
  });
  if (begun === null) return await notAdmitted(run, admission);
  return await follow(run, begun);
}

async function go(run: Run, from: number, db: Sql): Promise<Begun | null> {
  return await follow(run, await beginNext(db, run, from));
}

async function notAdmitted(run: Run, admission: Admission): Promise<null> {
  if (admission.kind === "refuse") {
    await finishTurned(run, { state: "failed", error: admission.error, undone: true, failedPosition: null });
  } else await finishSucceeded(run, { skipped: [] });
  return null;
}

/** What came of the attempt to begin the next step. */
type Beginning =
  | { readonly kind: "begun"; readonly step: Begun }
  | { readonly kind: "allDone"; readonly skipped: StepName[] }
  | { readonly kind: "moved" }
  | { readonly kind: "cancelled" };

async function beginNext(db: Sql, run: Run, from: number, done?: DoneStep): Promise<Beginning> {
  const { skipped, next } = plan(run, from);
  if (next === null) return { kind: "allDone", skipped };
  const { position, step } = next;
  const begin = { position, name: step.name, host: await hostOf(db, run, step) };
  const { begun, moved, cancelReason } = await advance(db, run.claim, { done, skipped, begin });
  if (done !== undefined) noteDone(run, done);
  if (moved) return { kind: "moved" };
  if (begun === null) {
    run.askCancel(cancelReason);
    return { kind: "cancelled" };
  }
  const resumed = run.recorded.has(position);
  const { attempts, found, hostId } = begun;
  run.recorded.set(position, {
    position,
    name: step.name,
    state: "running",
    attempts,
    undoAttempts: 0,
    hostId,
    found,
    result: null,
  });
  return { kind: "begun", step: { position, step, hostId, attempts, found, resumed } };
}

/** Where a step runs: asked for now, or by the statement that begins it. */
async function hostOf(db: Sql, run: Run, { host }: Step<unknown>) {
  if (host === undefined) return null;
  const { input } = run.operation;
  if (typeof host === "object") return { subquery: host.subquery(input) };
  // Outside a transaction it only reads, and the operation's subjects are its own meanwhile.
  return await host(db as Tx, input);
}

async function follow(run: Run, beginning: Beginning): Promise<Begun | null> {
  switch (beginning.kind) {
    case "begun":
      await run.probe("begin.committed", beginning.step.step.name);
      return beginning.step;
    case "allDone":
      await finishSucceeded(run, { skipped: beginning.skipped });
      return null;
    case "moved":
      run.close();
      return null;
    case "cancelled":
      return await turnBack(run, null, null);
  }
}

async function runStep(run: Run, begun: Begun): Promise<Begun | null> {
  try {
    const found = await find(run, begun);
    const result = await act(run, begun, found);
    return await completed(run, begun, result);
  } catch (error) {
    return await failed(run, begun, error);
  }
}

async function find(run: Run, begun: Begun): Promise<JsonObject | null> {
  const { step, position } = begun;
  if (step.find === undefined || begun.found !== null) return begun.found;
  await run.probe("find.before", step.name);
  const found = await attempt(run, step, { ...begun, direction: "forward" }, step.find);
  await run.probe("find.after", step.name);
  await recordFound(run.deps.db, run.claim, position, found);
  const recorded = run.recorded.get(position);
  if (recorded !== undefined) run.recorded.set(position, { ...recorded, found });
  await run.probe("found.committed", step.name);
  return found;
}

async function act(run: Run, begun: Begun, found: JsonObject | null): Promise<JsonObject | undefined> {
  const { step } = begun;
  await run.probe("run.before", step.name);
  const result = await attempt(run, step, { ...begun, direction: "forward" }, (context) =>
    step.run({ ...context, found }),
  );
  await run.probe("run.after", step.name);
  return result;
}

/** Records the step, and begins the next one in the same statement where it can. */
async function completed(run: Run, begun: Begun, result: JsonObject | undefined): Promise<Begun | null> {
  const { db } = run.deps;
  const { step, position } = begun;
  const { skipped, next } = plan(run, position + 1);
  if (next === null) {
    await finishSucceeded(run, { done: { position, result }, skipped });
    return null;
  }
  const done = { position, result, writes: step.write?.(run.operation, result) };
  const goesOn = run.stop === null && !run.draining;
  if (step.record === undefined && goesOn) {
    const beginning = await beginNext(db, run, position + 1, done);
    await run.probe("record.committed", step.name);
    return await follow(run, beginning);
  }
  const beginning = await heldTransaction(db, run, async (tx) => {
    await advance(tx, run.claim, { done, skipped: [] });
    await step.record?.(tx, run.operation, result);
    await run.probe("record.written", step.name);
    return goesOn ? await beginNext(tx, run, position + 1) : null;
  });
  noteDone(run, done);
  await run.probe("record.committed", step.name);
  if (beginning !== null) return await follow(run, beginning);
  return await stopHere(run);
}

function noteDone(run: Run, { position, result }: DoneStep): void {
  const recorded = run.recorded.get(position);
  if (recorded !== undefined)
    run.recorded.set(position, { ...recorded, state: "succeeded", result: result ?? null });
}

/** A step is recorded, and the next one is not to begin. */
async function stopHere(run: Run): Promise<null> {
  if (run.stop === "lost") throw new Fenced();
  if (run.stop === "cancel" || run.stop === "deadline") return await turnBack(run, null, null);
  await letGo(run, 0);
  return null;
}

async function failed(run: Run, begun: Begun, error: unknown): Promise<null> {
  const { step, position, attempts } = begun;
  const verdict = judge({
    error,
    stop: run.stop,
    attempts,
    maxAttempts: step.maxAttempts ?? DEFAULT_MAX_ATTEMPTS,
  });
  if (verdict === "drop") throw error instanceof Fenced ? error : new Fenced();
  const facts = { operationId: run.id, step: step.name, err: error };
  if (verdict === "final") {
    if (run.stop === null && isBug(error)) run.deps.logger.error(facts, "a step failed by a mistake of ours");
    else run.deps.logger.warn(facts, "a step failed");
    return await turnBack(run, begun, error);
  }
  run.deps.logger.debug(facts, "a step is tried again later");
  const shown = verdict === "release" ? null : toErrorBody(operationError(error));
  await release(run.deps.db, run.claim, {
    pauseMs: pauseAfter(verdict, run, attempts),
    waitReason: shown,
    countsAsAttempt: verdict === "retry",
    step: { position, undo: false, error: shown },
  });
  run.close();
  return null;
}

function pauseAfter(verdict: "release" | "retry" | "waitForHost", run: Run, attempts: number): number {
  if (verdict === "retry") return backoffMs(attempts, Math.random(), STEP_BACKOFF);
  if (verdict === "waitForHost") return backoffMs(1, Math.random(), HOST_BACKOFF);
  return run.draining ? 0 : RELEASE_PAUSE_MS;
}

/** The operation does not go on: undoes what it did, or ends it where there is nothing to undo. */
async function turnBack(run: Run, begun: Begun | null, cause: unknown): Promise<null> {
  const error = errorToShow(run, cause);
  const state = run.stop === "cancel" ? "cancelled" : "failed";
  const failedPosition = begun?.position ?? null;
  if (run.recorded.size > 0 && run.claimed.forward_only) {
    const refused =
      cause instanceof DroverError && ![...run.recorded.values()].some((step) => step.state === "succeeded");
    await finishTurned(run, {
      state: refused ? "failed" : "attention",
      error,
      undone: refused,
      failedPosition,
    });
  } else if (undoable(run).length === 0) {
    await finishTurned(run, { state, error, undone: true, failedPosition });
  } else await turnAround(run, error, failedPosition);
  return null;
}

function errorToShow(run: Run, cause: unknown): DroverError {
  if (run.stop === "cancel")
    return errorOf(run.cancelReason, new DroverError("cancelled", "The operation was cancelled."));
  if (run.stop === "deadline") return deadlineError(null);
  return operationError(cause);
}

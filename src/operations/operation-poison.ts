import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, toErrorBody } from "../lib/errors.ts";
import { asId, type OperationId, type ProjectId } from "../lib/ids.ts";
import { backoffMs, STEP_BACKOFF } from "./operation-backoff.ts";
import type { ClaimedOperation } from "./operation-claim.ts";
import { endOperation } from "./operation-end.ts";
import { Fenced, isDatabasePassing, operationError } from "./operation-errors.ts";
import { lockSubjects } from "./operation-lanes.ts";
import type { RunDeps } from "./operation-run.ts";
import { release } from "./operation-steps-store.ts";

/** Claims of an operation that fails outside its steps, before it is set aside. */
const MAX_CLAIMS = 8;
const RETRY_MS = 500;

/**
 * A run broke outside its steps: the database went away or did not answer in time, or there is a mistake in what surrounds the steps
 * (`record`, `onEnd`, the input's schema). Gives the claim back, trying until that worked or the lease is over, so
 * that nothing stays claimed by a worker that lives. One that breaks each time is set aside as `attention`.
 */
export async function giveBack(deps: RunDeps, claimed: ClaimedOperation, error: unknown): Promise<void> {
  const { logger, lease } = deps;
  const passes = isDatabasePassing(error);
  const facts = { operationId: claimed.id, err: error };
  if (passes) logger.warn(facts, "the database went away during an operation; it goes on later");
  else logger.error(facts, "an operation broke outside its steps");
  while (lease.isHeld()) {
    try {
      if (!passes && claimed.attempt >= MAX_CLAIMS) await setAside(deps, claimed, error);
      else await putBack(deps, claimed, error, passes);
      return;
    } catch (failure) {
      if (failure instanceof Fenced) return;
      logger.debug(
        { operationId: claimed.id, error: messageOf(failure) },
        "could not give an operation back yet",
      );
      await sleep(RETRY_MS);
    }
  }
}

async function putBack(
  deps: RunDeps,
  claimed: ClaimedOperation,
  error: unknown,
  passes: boolean,
): Promise<void> {
  await release(deps.db, claimOf(claimed), {
    pauseMs: passes ? RETRY_MS : backoffMs(claimed.attempt, Math.random(), STEP_BACKOFF),
    waitReason: passes ? null : toErrorBody(operationError(error)),
    countsAsAttempt: !passes,
    step: null,
  });
}

async function setAside(deps: RunDeps, claimed: ClaimedOperation, error: unknown): Promise<void> {
  const operation = {
    id: asId<OperationId>(claimed.id),
    kind: claimed.kind,
    projectId: claimed.project_id === null ? null : asId<ProjectId>(claimed.project_id),
    input: claimed.input,
  };
  await deps.db.transaction(async (tx) => {
    await lockSubjects(tx, claimed.subjects);
    const ended = await endOperation(tx, deps.kinds, operation, {
      outcome: { state: "attention", error: operationError(error), undone: false },
      subjects: claimed.subjects,
      claim: claimOf(claimed),
      withoutOnEnd: true,
    });
    if (!ended) throw new Fenced();
  });
}

function claimOf(claimed: ClaimedOperation): { readonly operationId: string; readonly token: string } {
  return { operationId: claimed.id, token: claimed.token };
}

import type { Database } from "../db/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId } from "../lib/ids.ts";
import { Fenced } from "./operation-errors.ts";
import type { Step, StepContext } from "./operation-kind.ts";
import type { Run } from "./operation-run.ts";
import { assertClaim, recordProgress } from "./operation-steps-store.ts";

const DEFAULT_STEP_SECONDS = 60;
const PROGRESS_EVERY_MS = 1_000;
// A step that does not heed its signal is left behind after this; its calls and writes are refused from then on.
const SETTLE_MS = 5_000;

export interface StepSite {
  readonly position: number;
  readonly hostId: HostId | null;
  readonly resumed: boolean;
  readonly direction: "forward" | "backward";
}

function stepSeconds(step: Step<unknown>, input: unknown): number {
  const seconds =
    typeof step.timeoutSeconds === "function" ? step.timeoutSeconds(input) : step.timeoutSeconds;
  return seconds ?? DEFAULT_STEP_SECONDS;
}

/**
 * Runs one attempt of a step's function with what it needs, inside its time. Rejects with what it threw; with a
 * HypervisorError `timeout` when its time was over; with one `unreachable` when its host is not connected.
 */
export async function attempt<T>(
  run: Run,
  step: Step<unknown>,
  site: StepSite,
  work: (context: StepContext<unknown>) => Promise<T>,
): Promise<T> {
  const host = site.hostId === null ? null : run.deps.hosts.connection(site.hostId);
  const seconds = stepSeconds(step, run.operation.input);
  const timeout = new AbortController();
  const stopped = site.direction === "forward" ? run.forwardSignal : run.backwardSignal;
  const signal = AbortSignal.any([stopped, timeout.signal]);
  const timer = setTimeout(() => {
    timeout.abort("timeout");
  }, seconds * 1000);
  const attempted = new Attempt(run, site, host, signal, seconds);
  try {
    return await settled(work(attempted.context()), signal);
  } catch (error) {
    const isLate = timeout.signal.aborted && !stopped.aborted;
    if (site.hostId !== null && (isLate || isTimeout(error))) run.deps.hosts.suspect(site.hostId);
    if (!isLate) throw error;
    const message = `The step "${step.name}" was not done within ${seconds} seconds.`;
    throw new HypervisorError("timeout", message, { cause: error });
  } finally {
    clearTimeout(timer);
    attempted.end();
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "timeout";
}

/** Waits for the work, but only for a while once its signal has aborted. */
async function settled<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const late = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    timer = setTimeout(() => {
      late.reject(new HypervisorError("aborted", "the step did not end when it was told to"));
    }, SETTLE_MS);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    clearTimeout(timer);
  }
}

/** The rights of one attempt: they end with it, even where its function runs on. */
class Attempt {
  readonly #run: Run;
  readonly #site: StepSite;
  readonly #host: HostConnection | null;
  readonly #signal: AbortSignal;
  readonly #seconds: number;
  #over = false;
  #progressAt = -Infinity;

  constructor(run: Run, site: StepSite, host: HostConnection | null, signal: AbortSignal, seconds: number) {
    this.#run = run;
    this.#site = site;
    this.#host = host;
    this.#signal = signal;
    this.#seconds = seconds;
  }

  end(): void {
    this.#over = true;
  }

  context(): StepContext<unknown> {
    return {
      operation: this.#run.operation,
      signal: this.#signal,
      host: this.#host,
      resumed: this.#site.resumed,
      call: {
        signal: this.#signal,
        timeoutMs: this.#seconds * 1000,
        beforeSend: () => {
          this.#assertMaySend();
        },
      },
      read: (work) => this.#read(work),
      transaction: (work) => this.#transaction(work),
      progress: (done, total, unit) => {
        this.#progress(done, total, unit);
      },
    };
  }

  /** In the same tick as the write to the host: nothing between this check and the socket can take the right away. */
  #assertMaySend(): void {
    this.#assertOpen();
    if (this.#signal.aborted) throw new HypervisorError("aborted", "the step was told to end");
    this.#run.deps.lease.assertMaySend();
    // The claim's host, for a step on no host too: with its epoch the right to the whole operation goes.
    const { hostId } = this.#run;
    if (hostId !== null && this.#run.deps.hosts.owned().get(hostId) !== this.#run.claimed.epoch)
      throw new Fenced("the host has another owner");
  }

  #assertOpen(): void {
    if (this.#over || this.#run.closed) throw new Fenced("the attempt is over");
  }

  async #read<T>(work: (db: Sql) => Promise<T>): Promise<T> {
    this.#assertOpen();
    const result = await work(this.#run.deps.db);
    this.#assertOpen();
    return result;
  }

  async #transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    this.#assertOpen();
    return await underClaimTransaction(this.#run.deps.db, this.#run, async (tx) => {
      const result = await work(tx);
      this.#assertOpen();
      return result;
    });
  }

  #progress(done: number, total: number, unit: "bytes" | "items"): void {
    const now = performance.now();
    if (this.#over || now - this.#progressAt < PROGRESS_EVERY_MS) return;
    this.#progressAt = now;
    const { deps, claim, id } = this.#run;
    recordProgress(deps.db, claim, this.#site.position, { done, total, unit }).catch((error: unknown) => {
      if (error instanceof Fenced) this.#run.interrupt("lost");
      else deps.logger.debug({ operationId: id, error: messageOf(error) }, "progress was not recorded");
    });
  }
}

/** A transaction that commits only while this worker has the right to the operation. */
async function underClaimTransaction<T>(db: Database, run: Run, work: (tx: Tx) => Promise<T>): Promise<T> {
  return await heldTransaction(db, run, async (tx) => {
    await assertClaim(tx, run.claim);
    return await work(tx);
  });
}

/** The same for work whose first statement proves the claim itself. */
export async function heldTransaction<T>(db: Database, run: Run, work: (tx: Tx) => Promise<T>): Promise<T> {
  return await db.transaction(async (tx) => {
    assertHeld(run);
    const result = await work(tx);
    assertHeld(run);
    return result;
  });
}

/** By this process's own clock: what the database says may be a moment old. */
function assertHeld(run: Run): void {
  if (!run.deps.lease.isHeld()) throw new Fenced("the worker's lease is over");
}

import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "../db/client.ts";
import { WRITTEN } from "../events/event-channels.ts";
import type { Clock } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { type CrashProbe, noProbe } from "./crash-points.ts";
import { CANCEL_ASKED, ENDED, QUEUED, type Wakes } from "./operation-channels.ts";
import {
  type ClaimableHost,
  type ClaimedOperation,
  cancelRequests,
  claimOperations,
  noteFullKind,
} from "./operation-claim.ts";
import { Fenced } from "./operation-errors.ts";
import { execute } from "./operation-forward.ts";
import { fullKindReason, type HeavyKind, heavyKinds } from "./operation-heavy.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { giveBack } from "./operation-poison.ts";
import { type HostAccess, Run, type RunDeps } from "./operation-run.ts";
import { noteSilentHosts, sweep } from "./operation-sweeper.ts";
import { letGo } from "./operation-undo.ts";
import type { WorkerLease } from "./worker-lease.ts";

export interface RunnerLimits {
  /** Operations at once on one host; 8 without. */
  readonly perHost?: number;
  /** Operations at once that are on no host; 16 without. */
  readonly withoutHost?: number;
  /** Operations at once altogether; 256 without. Most of them wait for hosts. */
  readonly perWorker?: number;
  /** How long an undo is tried before a person must look, in seconds; 600 without. */
  readonly undoSeconds?: number;
  /** How often the runner looks without being woken, in seconds; 1 without. */
  readonly pollSeconds?: number;
}

export interface RunnerDeps {
  readonly db: Database;
  readonly wakes: Wakes;
  readonly kinds: KindRegistry;
  readonly hosts: HostAccess;
  readonly lease: WorkerLease;
  readonly logger: Log;
  readonly clock: Clock;
  readonly limits?: RunnerLimits;
  readonly probe?: CrashProbe;
}

/** Takes operations whose turn has come and runs them. */
export interface OperationRunner {
  /** Looks for work now, such as after a host was connected. */
  wake(): void;
  /**
   * Takes nothing more, lets running steps end for at most so many seconds, then aborts what still runs and gives
   * everything up, so that another worker goes on at once.
   */
  stop(options: { readonly drainSeconds: number }): Promise<void>;
  /**
   * The same for one host; then calls `handOver`, until whose end nothing of the host is taken again. Rejects with
   * what `handOver` threw.
   */
  releaseHost(
    hostId: HostId,
    options: { readonly drainSeconds: number; readonly handOver: () => Promise<void> },
  ): Promise<void>;
  /** How many operations run here, for metrics. */
  running(): number;
  /** How many of them are on this host. */
  runningOn(hostId: HostId): number;
}

export function createOperationRunner(deps: RunnerDeps): OperationRunner {
  return new Runner(deps);
}

class Runner implements OperationRunner {
  readonly #deps: RunnerDeps;
  readonly #runDeps: RunDeps;
  readonly #limits: Required<RunnerLimits>;
  /** By token: an operation may be taken again while an earlier run of it, which has lost it, has not ended yet. */
  readonly #runs = new Map<string, { readonly run: Run; readonly ended: Promise<void> }>();
  readonly #releasing = new Set<HostId>();
  /** Kinds of which this worker runs only so many at once. */
  readonly #heavy: readonly HeavyKind[];
  readonly #unlisten: readonly (() => void)[];
  readonly #poll: NodeJS.Timeout;
  #stopped = false;
  /** What the next look is to do; null: nothing is due. */
  #due: { claim: boolean; cancels: boolean; sweep: boolean } | null = null;
  #looking: Promise<void> | null = null;
  #claiming: Promise<void> = Promise.resolve();

  constructor(deps: RunnerDeps) {
    this.#deps = deps;
    this.#limits = {
      perHost: 8,
      withoutHost: 16,
      perWorker: 256,
      undoSeconds: 600,
      pollSeconds: 1,
      ...deps.limits,
    };
    const { db, kinds, hosts, lease, logger } = deps;
    this.#heavy = heavyKinds(kinds);
    this.#runDeps = {
      db,
      kinds,
      hosts,
      lease,
      logger,
      probe: deps.probe ?? noProbe,
      undoSeconds: this.#limits.undoSeconds,
    };
    this.#unlisten = [
      deps.wakes.listen(QUEUED, () => {
        this.#look({ claim: true, cancels: false, sweep: false });
      }),
      deps.wakes.listen(CANCEL_ASKED, () => {
        this.#look({ claim: true, cancels: true, sweep: false });
      }),
    ];
    this.#poll = setInterval(() => {
      this.#look({ claim: true, cancels: true, sweep: true });
    }, this.#limits.pollSeconds * 1000);
    lease.onLost(() => {
      this.#lost();
    });
    this.wake();
  }

  wake(): void {
    this.#look({ claim: true, cancels: true, sweep: false });
  }

  running(): number {
    return this.#runs.size;
  }

  runningOn(hostId: HostId): number {
    return this.#runsOn(hostId).length;
  }

  async stop({ drainSeconds }: { readonly drainSeconds: number }): Promise<void> {
    this.#end();
    for (const { run } of this.#runs.values()) run.drain();
    // A claim that is under way may still add to them.
    await this.#looking;
    await this.#drain([...this.#runs.values()], drainSeconds);
  }

  async releaseHost(
    hostId: HostId,
    { drainSeconds, handOver }: { readonly drainSeconds: number; readonly handOver: () => Promise<void> },
  ): Promise<void> {
    this.#releasing.add(hostId);
    try {
      // What a claim that is under way brings is given back by its own run.
      await Promise.allSettled([this.#claiming]);
      await this.#drain(this.#runsOn(hostId), drainSeconds);
      await handOver();
    } finally {
      this.#releasing.delete(hostId);
      // Where it was kept after all.
      this.wake();
    }
  }

  #runsOn(hostId: HostId) {
    return [...this.#runs.values()].filter(({ run }) => run.hostId === hostId);
  }

  async #drain(
    runs: readonly { readonly run: Run; readonly ended: Promise<void> }[],
    seconds: number,
  ): Promise<void> {
    for (const { run } of runs) run.drain();
    const all = Promise.all(runs.map(({ ended }) => ended));
    const stopWaiting = new AbortController();
    await Promise.race([
      all,
      sleep(seconds * 1000, undefined, { signal: stopWaiting.signal }).catch(() => undefined),
    ]);
    stopWaiting.abort();
    for (const { run } of runs) if (!run.closed) run.interrupt("drain");
    await all;
  }

  #end(): void {
    this.#stopped = true;
    clearInterval(this.#poll);
    for (const unlisten of this.#unlisten) unlisten();
  }

  /** Everything stops at once; what was sent already is looked at by whoever takes over. */
  #lost(): void {
    this.#end();
    for (const { run } of this.#runs.values()) run.interrupt("lost");
  }

  /** Looks once more after the look that is under way: however many wake-ups come meanwhile, one look follows. */
  #look(what: { readonly claim: boolean; readonly cancels: boolean; readonly sweep: boolean }): void {
    if (this.#stopped) return;
    const { claim = false, cancels = false, sweep: sweeps = false } = this.#due ?? {};
    this.#due = { claim: claim || what.claim, cancels: cancels || what.cancels, sweep: sweeps || what.sweep };
    this.#looking ??= this.#lookWhileDue().finally(() => {
      this.#looking = null;
    });
  }

  async #lookWhileDue(): Promise<void> {
    // Wake-ups that come in one tick, as after each change, are one look.
    await Promise.resolve();
    while (this.#due !== null && !this.#stopped) {
      const due = this.#due;
      this.#due = null;
      try {
        if (due.sweep) await this.#sweep();
        if (due.cancels) await this.#noticeCancels();
        if (due.claim) {
          this.#claiming = this.#claim();
          await this.#claiming;
        }
        // At the steady pace only: heavy work does not mind the second, and the others do not pay for the question.
        if (due.sweep) for (const heavy of this.#heavy) await this.#claimHeavy(heavy);
      } catch (error) {
        this.#deps.logger.warn({ error: messageOf(error) }, "could not look for operations; trying again");
      }
    }
  }

  async #sweep(): Promise<void> {
    const { db, kinds, logger, hosts } = this.#deps;
    const silent = [...hosts.owned().keys()].filter((id) => !this.#isConnected(id));
    if (silent.length > 0) await noteSilentHosts(db, silent);
    const { ended, promoted } = await sweep(db, kinds, { undoSeconds: this.#limits.undoSeconds, logger });
    if (ended > 0) this.#tellEnded();
    if (promoted > 0) this.#look({ claim: true, cancels: false, sweep: false });
  }

  async #noticeCancels(): Promise<void> {
    if (this.#runs.size === 0) return;
    for (const { token, reason } of await cancelRequests(this.#deps.db, this.#deps.lease.workerId))
      this.#runs.get(token)?.run.askCancel(reason);
  }

  async #claim(): Promise<void> {
    const { db, lease, kinds } = this.#deps;
    const free = this.#limits.perWorker - this.#runs.size;
    if (free <= 0 || !lease.isHeld()) return;
    const busy = new Map<HostId | null, number>();
    for (const { run } of this.#runs.values()) busy.set(run.hostId, (busy.get(run.hostId) ?? 0) + 1);
    await this.#runDeps.probe("claim.before", { operationId: null, kind: null, step: null });
    // Else a runner that is told to stop while it looks would take again what it has just given up.
    if (this.#stopped) return;
    const request = {
      workerId: lease.workerId,
      hosts: this.#claimableHosts(busy),
      freeWithoutHost: Math.max(0, this.#limits.withoutHost - (busy.get(null) ?? 0)),
      free,
      kinds: kinds.names,
      onlyUndoing: this.#heavy.map(({ kind }) => kind),
    };
    // One statement; in a transaction it is planned once, not each time.
    const claimed = await db.transaction((tx) => claimOperations(tx, request));
    for (const operation of claimed) this.#start(operation);
    // More may have been waiting than one claim takes.
    if (claimed.length === free) this.#look({ claim: true, cancels: false, sweep: false });
  }

  async #claimHeavy(heavy: HeavyKind): Promise<void> {
    const { kind, most } = heavy;
    const { db, lease } = this.#deps;
    const running = [...this.#runs.values()].filter(({ run }) => run.kind.name === kind).length;
    const free = Math.min(most - running, this.#limits.perWorker - this.#runs.size);
    if (!lease.isHeld()) return;
    await this.#runDeps.probe("claim.before", { operationId: null, kind: null, step: null });
    if (this.#stopped) return;
    const request = { workerId: lease.workerId, hosts: [], freeWithoutHost: free, free, kinds: [kind] };
    const claimed = await db.transaction((tx) => claimOperations(tx, { ...request, onlyUndoing: [] }));
    for (const operation of claimed) this.#start(operation);
    if (claimed.length >= free) await noteFullKind(db, kind, fullKindReason(heavy));
  }

  #claimableHosts(busy: ReadonlyMap<HostId | null, number>): ClaimableHost[] {
    return [...this.#deps.hosts.owned()].flatMap(([id, epoch]) => {
      const free = this.#limits.perHost - (busy.get(id) ?? 0);
      // What waits for a host that does not answer is not even taken: it costs nothing, and counts no attempt.
      return free > 0 && !this.#releasing.has(id) && this.#isConnected(id) ? [{ id, epoch, free }] : [];
    });
  }

  #isConnected(hostId: HostId): boolean {
    try {
      this.#deps.hosts.connection(hostId);
      return true;
    } catch {
      return false;
    }
  }

  #start(operation: ClaimedOperation): void {
    let run: Run;
    try {
      run = new Run(this.#runDeps, operation);
    } catch (error) {
      void giveBack(this.#runDeps, operation, error);
      return;
    }
    // Taken by a claim that was already on its way when the runner, or the host, was told to stop.
    if (this.#stopped || (run.hostId !== null && this.#releasing.has(run.hostId))) run.drain();
    const ended = this.#run(run).finally(() => {
      run.close();
      this.#runs.delete(operation.token);
      // A place is free, and what waited behind may run: this wakes the runner too.
      this.#tellEnded();
    });
    this.#runs.set(operation.token, { run, ended });
  }

  async #run(run: Run): Promise<void> {
    try {
      await run.probe("claim.committed");
      if (run.draining) await letGo(run, 0);
      else await execute(run);
    } catch (error) {
      if (error instanceof Fenced) {
        this.#deps.logger.warn(
          { operationId: run.id, reason: error.message },
          "an operation was lost to another worker",
        );
        return;
      }
      run.interrupt("lost");
      await giveBack(this.#runDeps, run.claimed, error);
    }
  }

  #tellEnded(): void {
    this.#deps.wakes.notify(ENDED);
    this.#deps.wakes.notify(WRITTEN);
    // Whatever was promoted may belong to another worker.
    this.#deps.wakes.notify(QUEUED);
  }
}

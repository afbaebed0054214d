import { hostname } from "node:os";
import type { Database } from "../db/client.ts";
import type { Listener } from "../db/listener.ts";
import type { Clock } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import { newId, type WorkerId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { OWNERSHIP, QUEUED } from "./operation-channels.ts";
import { Fenced, SendingPaused } from "./operation-errors.ts";
import {
  insertWorker,
  markDraining,
  reapWorkers,
  releaseOrphans,
  removeWorker,
  renewLease,
  renewLeaseOver,
  sessionLockKey,
} from "./worker-store.ts";

export interface WorkerLeaseDeps {
  readonly db: Database;
  readonly listener: Pick<Listener, "holdLock" | "notify" | "run" | "isHealthy">;
  readonly clock: Clock;
  readonly logger: Log;
  /** A worker that says nothing for so long has lost everything. 10 without. */
  readonly leaseSeconds?: number;
  /**
   * So long after a renewal calls may be sent to hosts; half the lease, at most 3, without. A worker whose connection
   * is gone, such as one that was killed, is given up when this is over, long before its lease is.
   */
  readonly sendSeconds?: number;
  /** A third of `sendSeconds` without. */
  readonly renewSeconds?: number;
  /** How often this worker looks for dead ones; 0.5 without. */
  readonly reapSeconds?: number;
}

/** What a worker's right to write and to send hangs on. Once lost it never comes back: start another one. */
export interface WorkerLease {
  readonly workerId: WorkerId;
  /** True while the lease is not over, by this process's own clock. */
  isHeld(): boolean;
  /** Throws `Fenced` when the lease is over, `SendingPaused` when it was not renewed for a while. Costs nothing. */
  assertMaySend(): void;
  /** Calls the listener once when the lease is lost. Not after `stop`. */
  onLost(listener: (reason: string) => void): void;
  /** Tells the others that this worker takes nothing new. */
  drain(): Promise<void>;
  /** Gives the lease back: the others take over at once. */
  stop(): Promise<void>;
}

/** Registers this process as a worker; each lease needs a listener of its own. Rejects when the database cannot be reached. */
export async function startWorkerLease(deps: WorkerLeaseDeps): Promise<WorkerLease> {
  const lease = new Lease(deps);
  await lease.start();
  return lease;
}

interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

function instantOf(clock: Clock): Instant {
  return { monotonicMs: clock.monotonicMs(), wallMs: clock.now().getTime() };
}

class Lease implements WorkerLease {
  readonly workerId = newId<WorkerId>();
  readonly #deps: WorkerLeaseDeps;
  readonly #leaseSeconds: number;
  readonly #sendSeconds: number;
  readonly #renewMs: number;
  readonly #listeners: ((reason: string) => void)[] = [];
  /** When the last good renewal was sent. */
  #renewedAt: Instant = { monotonicMs: -Infinity, wallMs: -Infinity };
  #over = false;
  #timers: NodeJS.Timeout[] = [];
  #renewing = false;
  #reaping: Promise<void> | null = null;

  constructor(deps: WorkerLeaseDeps) {
    this.#deps = deps;
    this.#leaseSeconds = deps.leaseSeconds ?? 10;
    this.#sendSeconds = deps.sendSeconds ?? Math.min(3, this.#leaseSeconds / 2);
    this.#renewMs = (deps.renewSeconds ?? this.#sendSeconds / 3) * 1000;
    if (this.#sendSeconds > this.#leaseSeconds || this.#renewMs >= this.#sendSeconds * 1000)
      throw new RangeError("a lease needs renewSeconds < sendSeconds <= leaseSeconds");
  }

  async start(): Promise<void> {
    const { db, listener, clock, logger } = this.#deps;
    const before = instantOf(clock);
    const lockKey = await insertWorker(db, {
      id: this.workerId,
      hostname: hostname(),
      pid: process.pid,
      ...this.#times(),
    });
    this.#renewedAt = before;
    // Without it a crash of this worker is noticed when its lease is over, later but no less surely.
    if (!(await listener.holdLock(sessionLockKey(lockKey))))
      logger.warn({ workerId: this.workerId }, "another session holds this worker's lock");
    // The others share their hosts with it.
    listener.notify(OWNERSHIP);
    const reapMs = (this.#deps.reapSeconds ?? 0.5) * 1000;
    const reap = (): void => {
      this.#reaping ??= this.#reap().finally(() => {
        this.#reaping = null;
      });
    };
    // Whom this one replaces may be dead long enough already.
    reap();
    this.#timers = [
      setInterval(() => void this.#renew(), this.#renewMs),
      setInterval(reap, reapMs),
      // The lease's end must be noticed while a renewal hangs too.
      setInterval(() => {
        if (!this.isHeld()) this.#lose("it was not renewed in time");
      }, 250),
    ];
  }

  isHeld(): boolean {
    return !this.#over && this.#sinceRenewalMs() < this.#leaseSeconds * 1000;
  }

  assertMaySend(): void {
    if (!this.isHeld()) throw new Fenced("the worker's lease is over");
    if (this.#sinceRenewalMs() >= this.#sendSeconds * 1000) throw new SendingPaused();
  }

  onLost(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }

  async drain(): Promise<void> {
    await markDraining(this.#deps.db, this.workerId);
  }

  async stop(): Promise<void> {
    if (this.#over) return;
    this.#end();
    await this.#reaping;
    await removeWorker(this.#deps.db, this.workerId);
    this.#tellFreed();
  }

  #times(): { readonly leaseSeconds: number; readonly sendSeconds: number } {
    return { leaseSeconds: this.#leaseSeconds, sendSeconds: this.#sendSeconds };
  }

  /**
   * Counted from before the renewal was sent: the database's own times are later, never earlier. The time of day
   * counts too, for the monotonic clock stands still while a machine is suspended.
   */
  #sinceRenewalMs(): number {
    const now = instantOf(this.#deps.clock);
    return Math.max(now.monotonicMs - this.#renewedAt.monotonicMs, now.wallMs - this.#renewedAt.wallMs);
  }

  async #renew(): Promise<void> {
    if (this.#renewing || this.#over) return;
    this.#renewing = true;
    const before = instantOf(this.#deps.clock);
    try {
      const { db, listener } = this.#deps;
      const renewed = listener.isHealthy()
        ? await renewLeaseOver(listener, this.workerId, this.#times())
        : await renewLease(db, this.workerId, this.#times());
      if (!renewed) this.#lose("another worker declared this one dead");
      // An answer that comes after the lease was over, such as after the process stood still, revives nothing.
      else if (this.isHeld()) this.#renewedAt = before;
    } catch (error) {
      this.#deps.logger.warn(
        { error: messageOf(error) },
        "could not renew this worker's lease; trying again",
      );
    } finally {
      this.#renewing = false;
    }
  }

  /** Any worker looks for dead ones. */
  async #reap(): Promise<void> {
    const { db, logger } = this.#deps;
    try {
      const dead = await reapWorkers(db);
      if (dead.length > 0)
        logger.warn({ workers: dead }, "workers died; their hosts and operations are taken over");
      const released = await releaseOrphans(db);
      if (dead.length > 0 || released > 0) this.#tellFreed();
    } catch (error) {
      logger.debug({ error: messageOf(error) }, "could not look for dead workers; trying again");
    }
  }

  #lose(reason: string): void {
    if (this.#over) return;
    this.#end();
    this.#deps.logger.error({ workerId: this.workerId, reason }, "this worker's lease is lost");
    for (const listener of this.#listeners) listener(reason);
    // Nothing is sent any more, so nobody has to wait for the row to run out.
    removeWorker(this.#deps.db, this.workerId).then(
      () => {
        this.#tellFreed();
      },
      (error: unknown) => {
        this.#deps.logger.debug({ error: messageOf(error) }, "the lost lease is left to other workers");
      },
    );
  }

  #tellFreed(): void {
    this.#deps.listener.notify(OWNERSHIP);
    this.#deps.listener.notify(QUEUED);
  }

  #end(): void {
    this.#over = true;
    for (const timer of this.#timers) clearInterval(timer);
  }
}

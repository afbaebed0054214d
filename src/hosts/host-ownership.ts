import { setTimeout as sleep } from "node:timers/promises";
import { type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId, WorkerId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { OWNERSHIP, type Wakes } from "../operations/operation-channels.ts";
import { connectHost, type DriverForUri, fenceOf } from "./host-connect.ts";
import {
  acquireHosts,
  type OwnedHost,
  ownedHosts,
  releaseHost,
  releaseHosts,
  type Share,
  shareOf,
} from "./host-ownership-store.ts";
import { HostSession, type HostSessionDeps } from "./host-session.ts";
import { hostAccessData } from "./host-store.ts";

/** The operations of this worker's hosts, as far as the owner of hosts has to know of them. */
export interface HostWork {
  /** How many operations run on a host. */
  runningOn(hostId: HostId): number;
  /**
   * Lets what runs on a host end, within bounds, and gives it up; then calls `handOver`, until whose end nothing of
   * the host begins.
   */
  release(hostId: HostId, handOver: () => Promise<void>): Promise<void>;
}

export interface HostOwnershipDeps extends Omit<HostSessionDeps, "connect"> {
  readonly workerId: WorkerId;
  readonly secretBox: SecretBox;
  readonly driverForUri: DriverForUri;
  readonly installationId: InstallationId;
  readonly wakes: Wakes;
  readonly work: HostWork;
}

interface Held {
  readonly session: HostSession;
  readonly connectionKey: string;
}

/** The backstop: who frees a host, comes or goes says so. */
const LOOK_EVERY_MS = 1_000;
// A connection that does not close by then is left behind.
const END_LIMIT_MS = 5_000;
/** Hosts that are handed over at the same time to a worker that joined. */
const HAND_OVER_AT_ONCE = 16;

/** The hosts that this worker owns, each with its session. */
export interface HostOwnership {
  /** The owned hosts that are connected, with the epoch under which each is owned. */
  owned(): ReadonlyMap<HostId, bigint>;
  /** The live connection of an owned host. Throws HypervisorError `unreachable`. */
  connection(hostId: HostId): HostConnection;
  /** A call got no answer in its time: looks at once whether the host answers, and takes it for silent if not. */
  suspect(hostId: HostId): void;
  /** Lets every session go without touching the database: the lease is lost. */
  drop(): Promise<void>;
  /** Gives every host up as soon as nothing runs there any more, and ends the sessions. */
  stop(): Promise<void>;
}

export function startHostOwnership(deps: HostOwnershipDeps): HostOwnership {
  return new Ownership(deps);
}

class Ownership implements HostOwnership {
  readonly #deps: HostOwnershipDeps;
  readonly #held = new Map<HostId, Held>();
  readonly #ending = new Set<Promise<void>>();
  readonly #handingOver = new Map<HostId, Promise<void>>();
  readonly #unlisten: () => void;
  /** Grows with each host that was given up: what was read of the database before is old. */
  #givenUp = 0;
  #stopped = false;
  #lookDue = false;
  #looking: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: HostOwnershipDeps) {
    this.#deps = deps;
    this.#unlisten = deps.wakes.listen(OWNERSHIP, () => {
      this.#lookNow();
    });
    this.#lookNow();
  }

  owned(): ReadonlyMap<HostId, bigint> {
    return new Map([...this.#held].map(([id, { session }]) => [id, session.epoch]));
  }

  connection(hostId: HostId): HostConnection {
    const present = this.#held.get(hostId);
    if (present === undefined) throw new HypervisorError("unreachable", "this worker does not own the host");
    return present.session.connection();
  }

  suspect(hostId: HostId): void {
    this.#held.get(hostId)?.session.suspect();
  }

  async drop(): Promise<void> {
    await this.#end();
    await this.#endSessions();
  }

  async stop(): Promise<void> {
    await this.#end();
    for (const id of this.#held.keys()) this.#startHandOver(id, () => Promise.resolve(true));
    await Promise.all(this.#handingOver.values());
    await this.#endSessions();
    await releaseHosts(this.#deps.db, this.#deps.workerId);
    this.#deps.wakes.notify(OWNERSHIP);
  }

  async #end(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#unlisten();
    await this.#looking;
  }

  async #endSessions(): Promise<void> {
    for (const { session } of this.#held.values()) void this.#endSession(session);
    this.#held.clear();
    await Promise.all(this.#ending);
  }

  /** Nobody has to wait for the end of one: a host that hangs must not keep the others from being looked after. */
  #endSession(session: HostSession): Promise<void> {
    const ended = withinEndLimit(session.stop()).finally(() => {
      this.#ending.delete(ended);
    });
    this.#ending.add(ended);
    return ended;
  }

  /** However many wake-ups come while a look is under way, one look follows. */
  #lookNow(): void {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    this.#lookDue = true;
    this.#looking ??= this.#lookWhileDue().finally(() => {
      this.#looking = null;
      if (!this.#stopped)
        this.#timer = setTimeout(() => {
          this.#lookNow();
        }, LOOK_EVERY_MS);
    });
  }

  async #lookWhileDue(): Promise<void> {
    while (this.#lookDue && !this.#stopped) {
      this.#lookDue = false;
      try {
        await this.#look();
      } catch (error) {
        const facts = { error: messageOf(error) };
        this.#deps.logger.warn(facts, "could not look which hosts this worker owns; trying again");
      }
    }
  }

  async #look(): Promise<void> {
    const { db, workerId } = this.#deps;
    const givenUp = this.#givenUp;
    const share = await acquireHosts(db, workerId);
    const hosts = await ownedHosts(db, workerId);
    if (this.#stopped) return;
    if (givenUp !== this.#givenUp) {
      this.#lookDue = true;
      return;
    }
    this.#align(hosts);
    if (share !== null) this.#shareOut(share);
  }

  /** Brings the sessions in line with what the database says this worker owns. */
  #align(hosts: readonly OwnedHost[]): void {
    const byId = new Map(hosts.map((host) => [host.id, host]));
    const stale = [...this.#held].filter(([id, { session, connectionKey }]) => {
      const host = byId.get(id);
      return session.isOver || host?.epoch !== session.epoch || host.connectionKey !== connectionKey;
    });
    for (const [id, { session }] of stale) {
      this.#held.delete(id);
      void this.#endSession(session);
    }
    for (const host of hosts) {
      if (!this.#held.has(host.id) && !this.#handingOver.has(host.id))
        this.#held.set(host.id, this.#open(host));
    }
  }

  #open(host: OwnedHost): Held {
    const deps = this.#deps;
    const session = new HostSession(host.id, host.epoch, {
      ...deps,
      connect: async (signal) => {
        const access = await hostAccessData(deps.db, host.id, deps.secretBox);
        if (access === null) throw new HypervisorError("not-found", "the host is no longer registered");
        return await connectHost(deps.driverForUri, access, deps.installationId, {
          signal,
          fence: fenceOf(host.id, host.epoch),
        });
      },
    });
    session.start();
    return { session, connectionKey: host.connectionKey };
  }

  /** Hands over what this worker owns beyond its share, since another one joined: idle hosts first. */
  #shareOut({ owned, fair }: Share): void {
    const atOnce = Math.min(owned - fair, HAND_OVER_AT_ONCE) - this.#handingOver.size;
    if (atOnce <= 0) return;
    const { work, db, workerId } = this.#deps;
    const idleFirst = [...this.#held.keys()]
      .filter((id) => !this.#handingOver.has(id))
      .map((id) => ({ id, running: work.runningOn(id) }))
      .toSorted((a, b) => a.running - b.running);
    const isSurplus = async (): Promise<boolean> => {
      const now = await shareOf(db, workerId);
      return now !== null && now.owned > now.fair;
    };
    for (const { id } of idleFirst.slice(0, atOnce)) this.#startHandOver(id, isSurplus);
  }

  #startHandOver(id: HostId, isWanted: () => Promise<boolean>): void {
    if (this.#handingOver.has(id)) return;
    const over = this.#handOver(id, isWanted)
      .catch((error: unknown) => {
        const facts = { hostId: id, error: messageOf(error) };
        this.#deps.logger.warn(facts, "could not hand a host over");
      })
      .finally(() => {
        this.#handingOver.delete(id);
        this.#lookNow();
      });
    this.#handingOver.set(id, over);
  }

  /** The host stays this worker's own, and observed, until nothing runs there any more. */
  async #handOver(id: HostId, isWanted: () => Promise<boolean>): Promise<void> {
    const { work, db, workerId, wakes, logger } = this.#deps;
    await work.release(id, async () => {
      const held = this.#held.get(id);
      // The worker that it was meant for may be gone again.
      if (held === undefined || !(await isWanted())) return;
      this.#held.delete(id);
      await this.#endSession(held.session);
      await releaseHost(db, workerId, { id, epoch: held.session.epoch });
      this.#givenUp++;
      wakes.notify(OWNERSHIP);
      logger.debug({ hostId: id }, "a host was handed over");
    });
  }
}

async function withinEndLimit(work: Promise<void>): Promise<void> {
  const stopWaiting = new AbortController();
  const tooLong = sleep(END_LIMIT_MS, undefined, { signal: stopWaiting.signal }).catch(() => undefined);
  await Promise.race([work, tooLong]);
  stopWaiting.abort();
}

import { setTimeout as sleep } from "node:timers/promises";
import { type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId, WorkerId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { connectHost, type DriverForUri } from "./host-connect.ts";
import { acquireHosts, type OwnedHost, ownedHosts, releaseHosts } from "./host-ownership-store.ts";
import { HostSession, type HostSessionDeps } from "./host-session.ts";
import { hostAccessData } from "./host-store.ts";

export interface HostOwnershipDeps extends Omit<HostSessionDeps, "connect"> {
  readonly workerId: WorkerId;
  readonly secretBox: SecretBox;
  readonly driverForUri: DriverForUri;
  readonly installationId: InstallationId;
}

interface Held {
  readonly session: HostSession;
  readonly connectionKey: string;
}

const LOOK_EVERY_MS = 1_000;
// A connection that does not close by then is left behind.
const END_LIMIT_MS = 5_000;

/** The hosts that this worker owns, each with its session. */
export interface HostOwnership {
  /** The owned hosts that are connected, with the epoch under which each is owned. */
  owned(): ReadonlyMap<HostId, bigint>;
  /** The live connection of an owned host. Throws HypervisorError `unreachable`. */
  connection(hostId: HostId): HostConnection;
  /** Lets every session go without touching the database: the lease is lost. */
  drop(): Promise<void>;
  /** Ends every session and gives the hosts back. */
  stop(): Promise<void>;
}

export function startHostOwnership(deps: HostOwnershipDeps): HostOwnership {
  const held = new Map<HostId, Held>();
  const ending = new Set<Promise<void>>();
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let looking: Promise<void> = Promise.resolve();

  function open(host: OwnedHost): Held {
    const session = new HostSession(host.id, host.epoch, {
      ...deps,
      connect: async (signal) => {
        const access = await hostAccessData(deps.db, host.id, deps.secretBox);
        if (access === null) throw new HypervisorError("not-found", "the host is no longer registered");
        return await connectHost(deps.driverForUri, access, deps.installationId, { signal });
      },
    });
    session.start();
    return { session, connectionKey: host.connectionKey };
  }

  /** Nobody waits for the end of one: a host that hangs must not keep the others from being looked after. */
  function end(session: HostSession): void {
    const ended = session.stop().finally(() => ending.delete(ended));
    ending.add(ended);
  }

  /** Brings the sessions in line with what the database says this worker owns. */
  function align(hosts: readonly OwnedHost[]): void {
    const byId = new Map(hosts.map((host) => [host.id, host]));
    const stale = [...held].filter(([id, { session, connectionKey }]) => {
      const host = byId.get(id);
      return session.isOver || host?.epoch !== session.epoch || host.connectionKey !== connectionKey;
    });
    for (const [id, { session }] of stale) {
      held.delete(id);
      end(session);
    }
    for (const host of hosts) {
      if (!held.has(host.id)) held.set(host.id, open(host));
    }
  }

  async function look(): Promise<void> {
    try {
      await deps.db.transaction((tx) => acquireHosts(tx, deps.workerId));
      const hosts = await ownedHosts(deps.db, deps.workerId);
      if (!stopped) align(hosts);
    } catch (error) {
      deps.logger.warn(
        { error: messageOf(error) },
        "could not look which hosts this worker owns; trying again",
      );
    }
  }

  function lookAndGoOn(): void {
    looking = look().then(() => {
      if (!stopped) timer = setTimeout(lookAndGoOn, LOOK_EVERY_MS);
    });
  }

  async function drop(): Promise<void> {
    for (const { session } of held.values()) end(session);
    held.clear();
    const stopWaiting = new AbortController();
    const tooLong = sleep(END_LIMIT_MS, undefined, { signal: stopWaiting.signal }).catch(() => undefined);
    await Promise.race([Promise.all(ending), tooLong]);
    stopWaiting.abort();
  }

  lookAndGoOn();
  return {
    owned: () => new Map([...held].map(([id, { session }]) => [id, session.epoch])),
    connection(hostId) {
      const present = held.get(hostId);
      if (present === undefined)
        throw new HypervisorError("unreachable", "this worker does not own the host");
      return present.session.connection();
    },
    async drop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
      await drop();
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
      await drop();
      await deps.db.transaction((tx) => releaseHosts(tx, deps.workerId));
    },
  };
}

import type { Database } from "../db/client.ts";
import type { Tx } from "../db/transaction.ts";
import { type HostConnection, HypervisorError } from "../hypervisors/hypervisor.ts";
import { type ErrorBody, messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { GuestAgents } from "./guest-agents.ts";
import { HostFollower } from "./host-follower.ts";
import { lockOwned, NotOwner, recordUnreachable } from "./host-observation-store.ts";
import type { ObservationSink } from "./observation-sink.ts";

export interface HostSessionDeps {
  readonly db: Database;
  readonly logger: Log;
  readonly installationId: InstallationId;
  readonly sink: ObservationSink;
  readonly connect: (signal: AbortSignal) => Promise<HostConnection>;
  readonly errorBodyOf: (error: unknown) => ErrorBody;
  readonly inventorySeconds: number;
  /** Between two looks into the host's pools. */
  readonly volumeScanSeconds: number;
  /** For tests: see HostFollowerDeps. */
  readonly absenceMs?: number;
  /** Called when the host's operations may go on, or must wait. */
  readonly onStateChange: () => void;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** What an agent tells changes less often than what its host shows, and three answers are work for its guest. */
const INVENTORIES_PER_QUESTION = 2;

/**
 * One owned host: keeps a connection, has what the host is and has recorded over it, and says so when the host falls
 * silent. All of it under the owner's epoch.
 */
export class HostSession {
  readonly hostId: HostId;
  readonly epoch: bigint;
  readonly #deps: HostSessionDeps;
  readonly #stop = new AbortController();
  #connection: HostConnection | null = null;
  #follower: HostFollower | null = null;
  #lastError: HypervisorError | null = null;
  #isOver = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(hostId: HostId, epoch: bigint, deps: HostSessionDeps) {
    this.hostId = hostId;
    this.epoch = epoch;
    this.#deps = deps;
  }

  /** True when it has ended: it was stopped, or the host was not its owner's any more at some moment. */
  get isOver(): boolean {
    return this.#isOver;
  }

  start(): void {
    this.#ended = this.#run().finally(() => {
      this.#isOver = true;
    });
  }

  /** Ends the connection. Nothing is recorded afterwards. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  /** The live connection. Throws HypervisorError `unreachable` with the reason while there is none. */
  connection(): HostConnection {
    if (this.#connection !== null) return this.#connection;
    const why = this.#lastError === null ? "it is being connected" : this.#lastError.message;
    throw new HypervisorError("unreachable", `the host is not connected: ${why}`, { cause: this.#lastError });
  }

  /**
   * A call got no answer in its time. A complete inventory is taken at once: a host that does not answer that either
   * loses its connection, and is sent nothing more until a new one has brought an inventory.
   */
  suspect(): void {
    this.#follower?.note({ kind: "resync" });
  }

  async #run(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!this.#stopped()) {
      try {
        await this.#liveOnce(() => {
          pauseMs = FIRST_PAUSE_MS;
        });
      } catch (error) {
        if (error instanceof NotOwner || !(await this.#noteFailure(error))) return;
      }
      // The jitter keeps a thousand hosts that fell silent at once from coming back at once.
      await this.#pause(pauseMs * (0.5 + Math.random() / 2));
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Connects, and lives as long as the connection; rejects with why it ended, resolves when it was told to end. */
  async #liveOnce(onAlive: () => void): Promise<void> {
    const connection = await this.#deps.connect(this.#stop.signal);
    const lost = new AbortController();
    const loss: { error?: HypervisorError } = {};
    connection.onClose((error) => {
      loss.error ??= error;
      lost.abort();
      this.#setConnection(null);
    });
    const { guestAgent } = connection;
    const signal = AbortSignal.any([this.#stop.signal, lost.signal]);
    const common = { ...this.#deps, hostId: this.hostId, write: this.#write.bind(this), signal };
    const paceMs = this.#deps.inventorySeconds * 1000 * INVENTORIES_PER_QUESTION;
    const agents =
      guestAgent === undefined ? null : new GuestAgents({ ...common, ability: guestAgent, paceMs });
    const follower = new HostFollower({
      ...common,
      connection,
      onSeen: (domains, which) => {
        agents?.see(domains, which);
      },
      onInventory: () => {
        if (lost.signal.aborted || this.#stopped()) return;
        this.#lastError = null;
        onAlive();
        this.#setConnection(connection);
      },
    });
    const unwatch = connection.watch((event) => {
      follower.note(event);
    });
    this.#follower = follower;
    try {
      await follower.follow();
    } finally {
      this.#follower = null;
      unwatch();
      // Where the follower gave up by itself nothing else ends what lives beside it.
      lost.abort();
      this.#setConnection(null);
      await this.#close(connection);
    }
    if (loss.error !== undefined) throw loss.error;
  }

  #setConnection(connection: HostConnection | null): void {
    if (this.#connection === connection) return;
    this.#connection = connection;
    this.#deps.onStateChange();
  }

  async #close(connection: HostConnection): Promise<void> {
    try {
      await connection.close();
    } catch (error) {
      const facts = { hostId: this.hostId, error: messageOf(error) };
      this.#deps.logger.debug(facts, "closing a host's connection failed");
    }
  }

  /** Only the host's own failure is the host's. False when the host belongs to somebody else by now. */
  async #noteFailure(error: unknown): Promise<boolean> {
    if (this.#stopped()) return true;
    const { logger } = this.#deps;
    if (!(error instanceof HypervisorError)) {
      logger.error({ hostId: this.hostId, err: error }, "connecting a host failed here; trying again");
      return true;
    }
    this.#lastError = error;
    logger.warn({ hostId: this.hostId, err: error }, "a host does not answer");
    try {
      await this.#write(async (tx) => {
        const news = await recordUnreachable(tx, this.hostId, this.#deps.errorBodyOf(error));
        if (news) await this.#deps.sink.unreachable(tx, this.hostId);
      });
    } catch (writeError) {
      if (writeError instanceof NotOwner) return false;
      // The database is away: the next attempt that fails is recorded.
      logger.warn({ hostId: this.hostId, err: writeError }, "could not record that a host does not answer");
    }
    return true;
  }

  #write<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#deps.db.transaction(async (tx) => {
      await lockOwned(tx, { hostId: this.hostId, epoch: this.epoch });
      return await work(tx);
    });
  }

  async #pause(milliseconds: number): Promise<void> {
    if (this.#stopped()) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#stop.signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      this.#stop.signal.addEventListener("abort", end);
    });
  }
}

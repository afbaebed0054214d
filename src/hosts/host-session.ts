import type { Database } from "../db/client.ts";
import { uniqueViolation } from "../db/database-errors.ts";
import type { Tx } from "../db/transaction.ts";
import {
  type Call,
  type HostConnection,
  type HostEvent,
  type HostInventory,
  HypervisorError,
  type ObservedDomain,
} from "../hypervisors/hypervisor.ts";
import { type ErrorBody, messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { checked, HostFactsSchema, HostInventorySchema, ObservedDomainSchema } from "./host-facts.ts";
import {
  forgetDomain,
  lockOwned,
  NotOwner,
  recordDomain,
  recordFacts,
  recordInventory,
  recordUnreachable,
} from "./host-observation-store.ts";

/** What the layer of VMs makes of what was seen; called in the transaction that records it. */
export interface ObservationSink {
  inventory(tx: Tx, hostId: HostId, inventory: HostInventory, observedAt: Date): Promise<void>;
  domain(
    tx: Tx,
    hostId: HostId,
    uuid: string,
    domain: ObservedDomain | null,
    observedAt: Date,
  ): Promise<void>;
  unreachable(tx: Tx, hostId: HostId): Promise<void>;
  ready(tx: Tx, hostId: HostId): Promise<void>;
}

export interface HostSessionDeps {
  readonly db: Database;
  readonly logger: Log;
  readonly installationId: InstallationId;
  readonly sink: ObservationSink;
  readonly connect: (signal: AbortSignal) => Promise<HostConnection>;
  readonly errorBodyOf: (error: unknown) => ErrorBody;
  readonly inventorySeconds: number;
  /** Called when the host's operations may go on, or must wait. */
  readonly onStateChange: () => void;
}

/** The only unique thing about facts is the machine's own UUID. */
function sameMachine(cause: unknown): HypervisorError {
  return new HypervisorError("already-exists", "this machine is registered already under another name", {
    cause,
  });
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const CALL_TIMEOUT_MS = 30_000;

/**
 * One owned host: keeps a connection, records what the host is and has at a steady pace and at every event, and says
 * so when it falls silent. All of it under the owner's epoch.
 */
export class HostSession {
  readonly hostId: HostId;
  readonly epoch: bigint;
  readonly #deps: HostSessionDeps;
  readonly #stop = new AbortController();
  readonly #changed = new Set<string>();
  #connection: HostConnection | null = null;
  #lastError: HypervisorError | null = null;
  #wake: () => void = () => undefined;
  #inventoryDue = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(hostId: HostId, epoch: bigint, deps: HostSessionDeps) {
    this.hostId = hostId;
    this.epoch = epoch;
    this.#deps = deps;
  }

  start(): void {
    this.#ended = this.#run();
  }

  /** Ends the connection. Nothing is recorded afterwards. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#ended;
  }

  /** The live connection. Throws HypervisorError `unreachable` with the reason while there is none. */
  connection(): HostConnection {
    if (this.#connection !== null) return this.#connection;
    const why = this.#lastError === null ? "it is being connected" : this.#lastError.message;
    throw new HypervisorError("unreachable", `the host is not connected: ${why}`, { cause: this.#lastError });
  }

  async #run(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#connected(() => {
          pauseMs = FIRST_PAUSE_MS;
        });
      } catch (error) {
        if (error instanceof NotOwner) return;
        await this.#noteFailure(error);
      }
      if (this.#stopped()) return;
      this.#inventoryDue = false;
      // The jitter keeps a thousand hosts that fell silent at once from coming back at once.
      await this.#pause(pauseMs * (0.5 + Math.random() / 2));
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Lives as long as one connection; rejects with why it ended. */
  async #connected(onAlive: () => void): Promise<void> {
    const connection = await this.#deps.connect(this.#stop.signal);
    const lost = Promise.withResolvers<never>();
    lost.promise.catch(() => undefined);
    connection.onClose((error) => {
      lost.reject(error);
      this.#wake();
    });
    const unwatch = connection.watch((event) => {
      this.#noteEvent(event);
    });
    try {
      await Promise.race([this.#follow(connection, onAlive), lost.promise]);
    } finally {
      unwatch();
      this.#connection = null;
      this.#deps.onStateChange();
      await connection.close().catch((error: unknown) => {
        this.#deps.logger.debug(
          { hostId: this.hostId, error: messageOf(error) },
          "closing a host's connection failed",
        );
      });
    }
  }

  async #follow(connection: HostConnection, onAlive: () => void): Promise<void> {
    const facts = checked(HostFactsSchema, await connection.probe(this.#call()), "facts");
    await this.#write((tx) => recordFacts(tx, this.hostId, facts));
    while (!this.#stopped()) {
      await this.#takeInventory(connection);
      if (this.#connection === null) {
        this.#connection = connection;
        this.#lastError = null;
        onAlive();
        this.#deps.onStateChange();
      }
      await this.#untilInventoryDue(connection);
    }
  }

  async #takeInventory(connection: HostConnection): Promise<void> {
    this.#inventoryDue = false;
    const observedAt = new Date();
    const inventory = checked(HostInventorySchema, await connection.inventory(this.#call()), "an inventory");
    await this.#write(async (tx) => {
      const { becameReady } = await recordInventory(
        tx,
        this.hostId,
        inventory,
        this.#deps.installationId,
        observedAt,
      );
      if (becameReady) await this.#deps.sink.ready(tx, this.hostId);
      await this.#deps.sink.inventory(tx, this.hostId, inventory, observedAt);
    });
  }

  /** Between inventories: looks at each domain that an event named. */
  async #untilInventoryDue(connection: HostConnection): Promise<void> {
    const dueAt = performance.now() + this.#deps.inventorySeconds * 1000;
    while (!this.#stopped() && !this.#inventoryDue) {
      const uuids = [...this.#changed];
      this.#changed.clear();
      for (const uuid of uuids) await this.#lookAt(connection, uuid);
      if (this.#changed.size > 0) continue;
      const leftMs = dueAt - performance.now();
      if (leftMs <= 0) return;
      await this.#pause(leftMs);
    }
  }

  async #lookAt(connection: HostConnection, uuid: string): Promise<void> {
    const observedAt = new Date();
    const seen = await connection.observeDomain(uuid, this.#call());
    const domain = seen === null ? null : checked(ObservedDomainSchema, seen, "a domain");
    await this.#write(async (tx) => {
      if (domain === null) await forgetDomain(tx, this.hostId, uuid);
      else await recordDomain(tx, this.hostId, domain, observedAt);
      await this.#deps.sink.domain(tx, this.hostId, uuid, domain, observedAt);
    });
  }

  #noteEvent(event: HostEvent): void {
    if (event.kind === "resync") this.#inventoryDue = true;
    else this.#changed.add(event.uuid);
    this.#wake();
  }

  /** Only the host's own failure is the host's: a database that is away says nothing about it. */
  async #noteFailure(error: unknown): Promise<void> {
    if (this.#stopped()) return;
    if (!(error instanceof HypervisorError) && uniqueViolation(error) === null) {
      this.#deps.logger.error(
        { hostId: this.hostId, err: error },
        "recording what a host is failed; trying again",
      );
      return;
    }
    this.#lastError = error instanceof HypervisorError ? error : sameMachine(error);
    this.#deps.logger.warn({ hostId: this.hostId, err: this.#lastError }, "a host does not answer");
    await this.#recordSilence(this.#lastError);
  }

  async #recordSilence(error: HypervisorError): Promise<void> {
    try {
      await this.#write(async (tx) => {
        const news = await recordUnreachable(tx, this.hostId, this.#deps.errorBodyOf(error));
        if (news) await this.#deps.sink.unreachable(tx, this.hostId);
      });
    } catch (writeError) {
      // The database is away, or another worker owns the host: both are noticed where hosts are owned.
      this.#deps.logger.warn(
        { hostId: this.hostId, err: writeError },
        "could not record that a host does not answer",
      );
    }
  }

  #write<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#deps.db.transaction(async (tx) => {
      await lockOwned(tx, { hostId: this.hostId, epoch: this.epoch });
      return await work(tx);
    });
  }

  /** Calls that only look may be sent by anybody. */
  #call(): Call {
    return { signal: this.#stop.signal, timeoutMs: CALL_TIMEOUT_MS, beforeSend: () => undefined };
  }

  async #pause(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      // What was noted while nobody slept must not be slept over.
      if (this.#stopped() || this.#inventoryDue || (this.#changed.size > 0 && this.#connection !== null))
        this.#wake();
    });
  }
}

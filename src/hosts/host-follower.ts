import { uniqueViolation } from "../db/database-errors.ts";
import type { Tx } from "../db/transaction.ts";
import {
  type Call,
  type HostConnection,
  type HostEvent,
  HypervisorError,
  type HypervisorErrorReason,
  type ObservedDomain,
  type ObservedVolume,
} from "../hypervisors/hypervisor.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { ABSENCE_MS } from "./absence.ts";
import { Absences } from "./absences.ts";
import { checked, HostFactsSchema, HostInventorySchema, ObservedDomainSchema } from "./host-facts.ts";
import {
  forgetDomains,
  NotOwner,
  recordDomains,
  recordFacts,
  recordInventory,
} from "./host-observation-store.ts";
import type { ObservationSink } from "./observation-sink.ts";

export interface HostFollowerDeps {
  readonly hostId: HostId;
  readonly connection: HostConnection;
  readonly installationId: InstallationId;
  readonly sink: ObservationSink;
  readonly logger: Log;
  readonly inventorySeconds: number;
  readonly volumeScanSeconds: number;
  /** How long a domain must not be seen before it is gone; ABSENCE_MS without. */
  readonly absenceMs?: number;
  /** Runs a transaction under the owner's epoch. */
  readonly write: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>;
  /** Called with the domains of each look that was recorded; `all`: of a complete inventory. */
  readonly onSeen: (domains: readonly ObservedDomain[], which: { readonly all: boolean }) => void;
  /** Called after each complete inventory that was recorded. */
  readonly onInventory: () => void;
  /** Aborts when the connection is lost or no longer wanted. */
  readonly signal: AbortSignal;
}

const CALL_TIMEOUT_MS = 30_000;
const AGAIN_MS = 1_000;
/** So many failures in a row of a host that does answer mean that nothing is known of it any more. */
const MOST_FAILURES = 3;
/** What comes so close together is looked at together: one change brings several events, and its own step looks first. */
const GATHER_MS = 25;
const BETWEEN_LOOKS_MS = 200;
/** Above this one complete inventory is cheaper than looking at each domain. */
const MOST_LOOKS = 50;
/** What a host that lives may answer now and then: the next try may go well. */
const PASSING: ReadonlySet<HypervisorErrorReason> = new Set(["failed", "busy"]);

/** The database did not take what was seen: that says nothing about the host. */
class Unrecorded extends Error {
  override readonly name = "Unrecorded";
}

/**
 * Records what one connected host is and has: its facts once, a complete inventory at a steady pace, and each domain
 * that an event names in between. It lives as long as its connection.
 */
export class HostFollower {
  readonly #deps: HostFollowerDeps;
  readonly #changed = new Set<string>();
  readonly #absences: Absences;
  #isProbed = false;
  #inventoryDueAt = -Infinity;
  #lookedAt = -Infinity;
  #volumesDueAt: number;
  /** When the first of what is not looked at yet was told. */
  #toldAt = -Infinity;
  #wake: () => void = () => undefined;

  constructor(deps: HostFollowerDeps) {
    this.#deps = deps;
    this.#absences = new Absences(deps.absenceMs ?? ABSENCE_MS);
    // Not all hosts that came at once, and not while everybody comes.
    this.#volumesDueAt = performance.now() + deps.volumeScanSeconds * 1000 * Math.random();
    deps.signal.addEventListener("abort", () => {
      this.#wake();
    });
  }

  /** Takes an event of the host: a hint where to look. */
  note(event: HostEvent): void {
    if (event.kind === "resync") this.#inventoryDueAt = -Infinity;
    else {
      if (this.#changed.size === 0) this.#toldAt = performance.now();
      this.#changed.add(event.uuid);
    }
    this.#wake();
  }

  /** Resolves when the signal aborts. Rejects with NotOwner, or with what the host did wrong once too often. */
  async follow(): Promise<void> {
    let failures = 0;
    while (!this.#isOver()) {
      try {
        await this.#next();
        failures = 0;
      } catch (error) {
        if (this.#isOver()) return;
        if (!(error instanceof Unrecorded)) failures++;
        if (!mayPass(error) || failures >= MOST_FAILURES) throw error;
        const facts = { hostId: this.#deps.hostId, error: messageOf(error) };
        this.#deps.logger.warn(facts, "recording what a host is failed; trying again");
        await this.#pause(AGAIN_MS);
      }
    }
  }

  #isOver(): boolean {
    return this.#deps.signal.aborted;
  }

  async #next(): Promise<void> {
    if (!this.#isProbed) {
      await this.#probe();
      return;
    }
    const leftMs = this.#inventoryDueAt - performance.now();
    if (leftMs <= 0 || this.#changed.size > MOST_LOOKS) {
      await this.#takeInventory();
      return;
    }
    const lookAt = Math.max(this.#lookedAt + BETWEEN_LOOKS_MS, this.#toldAt + GATHER_MS);
    const restMs = lookAt - performance.now();
    if (this.#changed.size === 0) await this.#pause(leftMs);
    else if (restMs > 0) await this.#pause(Math.min(restMs, leftMs));
    else await this.#lookAtChanged();
  }

  async #probe(): Promise<void> {
    const { connection, hostId } = this.#deps;
    const facts = checked(HostFactsSchema, await connection.probe(this.#call()), "facts");
    await this.#write((tx) => recordFacts(tx, hostId, facts));
    this.#isProbed = true;
  }

  async #takeInventory(): Promise<void> {
    const { connection, hostId, installationId, sink, inventorySeconds, onInventory } = this.#deps;
    // What was told so far has happened so far: the inventory shows it.
    this.#changed.clear();
    // The jitter keeps a thousand hosts that came at once from being asked at once for ever.
    this.#inventoryDueAt = performance.now() + inventorySeconds * 1000 * (0.9 + Math.random() / 5);
    let pools: readonly string[];
    try {
      const observedAt = new Date();
      const askedAt = performance.now();
      const answer = await connection.inventory(this.#call());
      const inventory = checked(HostInventorySchema, answer, "an inventory");
      const proven = this.#absences.provenAt(askedAt);
      const missed = await this.#write(async (tx) => {
        const news = await recordInventory(tx, hostId, inventory, installationId, observedAt);
        return news.recorded ? await sink.inventory(tx, hostId, inventory, observedAt, proven) : [];
      });
      this.#absences.missedAll(missed, askedAt);
      this.#lookAgainInTime();
      this.#deps.onSeen(inventory.domains, { all: true });
      pools = inventory.pools.filter(({ active }) => active).map(({ name }) => name);
    } catch (error) {
      this.#inventoryDueAt = -Infinity;
      throw error;
    }
    onInventory();
    if (performance.now() < this.#volumesDueAt) return;
    this.#volumesDueAt = performance.now() + this.#deps.volumeScanSeconds * 1000;
    await this.#lookIntoPools(pools);
  }

  /** A pool that cannot be read is looked into the next time: its host is no worse for it. */
  async #lookIntoPools(pools: readonly string[]): Promise<void> {
    const { connection, hostId, installationId, sink, logger } = this.#deps;
    const { volumes } = connection;
    if (volumes === undefined) return;
    const observedAt = new Date();
    const prefix = sink.volumePrefix(installationId);
    const read: string[] = [];
    const seen: ObservedVolume[] = [];
    for (const pool of pools) {
      try {
        seen.push(...(await volumes.listVolumes(pool, prefix, this.#call())));
        read.push(pool);
      } catch (error) {
        if (this.#isOver()) return;
        logger.info(
          { hostId, pool, error: messageOf(error) },
          "a pool could not be looked into; trying again later",
        );
      }
    }
    await this.#write((tx) => sink.volumes(tx, hostId, installationId, { pools: read, seen }, observedAt));
  }

  /** All that changed since the last look is looked at together and recorded in one transaction. */
  async #lookAtChanged(): Promise<void> {
    const { connection, hostId, sink } = this.#deps;
    const uuids = [...this.#changed];
    this.#changed.clear();
    try {
      // One time for all, before the first is asked for: none was asked for earlier than it says.
      const observedAt = new Date();
      const askedAt = performance.now();
      const answers = await Promise.all(uuids.map((uuid) => connection.observeDomain(uuid, this.#call())));
      const domains = answers
        .filter((seen) => seen !== null)
        .map((seen) => checked(ObservedDomainSchema, seen, "a domain"));
      const gone = uuids.filter((_, index) => answers[index] === null);
      const missed = await this.#write(async (tx) => {
        await forgetDomains(tx, hostId, gone, observedAt);
        await recordDomains(tx, hostId, domains, observedAt);
        return await sink.domains(tx, hostId, { seen: domains, gone }, observedAt);
      });
      this.#absences.seen(domains.map(({ uuid }) => uuid));
      this.#absences.missed(missed, askedAt);
      this.#lookAgainInTime();
      this.#deps.onSeen(domains, { all: false });
    } catch (error) {
      for (const uuid of uuids) this.#changed.add(uuid);
      throw error;
    } finally {
      this.#lookedAt = performance.now();
    }
  }

  /** What is not seen is looked for again when that would prove that it is gone. */
  #lookAgainInTime(): void {
    this.#inventoryDueAt = Math.min(this.#inventoryDueAt, this.#absences.dueAt);
  }

  async #write<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    try {
      return await this.#deps.write(work);
    } catch (error) {
      if (error instanceof NotOwner) throw error;
      if (uniqueViolation(error) !== null) throw sameMachine(error);
      throw new Unrecorded(messageOf(error), { cause: error });
    }
  }

  /** Calls that only look may be sent by anybody. */
  #call(): Call {
    return { signal: this.#deps.signal, timeoutMs: CALL_TIMEOUT_MS, beforeSend: () => undefined };
  }

  /** Ends early at an event, and when the connection ends. */
  async #pause(milliseconds: number): Promise<void> {
    if (this.#isOver()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function mayPass(error: unknown): boolean {
  if (error instanceof HypervisorError) return PASSING.has(error.reason);
  return error instanceof Unrecorded;
}

/** The only unique thing about what is recorded of a host is the machine's own UUID. */
function sameMachine(cause: unknown): HypervisorError {
  return new HypervisorError(
    "already-exists",
    "this machine is registered already under another name: delete one of the two hosts",
    { cause },
  );
}

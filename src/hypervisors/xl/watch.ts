import { setTimeout as sleep } from "node:timers/promises";
import type { Call, HostEvent } from "../hypervisor.ts";
import { type DomainReader, see, sightingsIn } from "./domain-look.ts";

/** Events come in bursts, and one look serves them all. */
const SETTLE_MS = 150;
/** What is in between when it is looked at has no further event when it has arrived. */
const LOOK_AGAIN_MS = 3_000;
const LOOK_TIMEOUT_MS = 30_000;
const RESTART_MS = 1_000;
const LONGEST_PAUSE_MS = 3_600_000;

interface Changes {
  readonly uuids: readonly string[];
  readonly isPassing: boolean;
}

type Listener = (event: HostEvent) => void;

/**
 * What the host tells by itself: Xen's store says that some domain came or went, or that some guest stopped itself, and
 * a look then says which. It begins with the first listener; each time that it begins anew, a complete inventory is due.
 */
export class HostWatch {
  readonly #reader: DomainReader;
  readonly #over: AbortSignal;
  readonly #listeners = new Set<Listener>();
  #isRunning = false;
  #isDue = false;
  #wake: () => void = () => undefined;
  #last = new Map<string, string>();

  constructor(reader: DomainReader, over: AbortSignal) {
    this.#reader = reader;
    this.#over = over;
  }

  add(listener: Listener): () => void {
    // Each its own, so that one function can listen twice.
    const own: Listener = (event) => {
      listener(event);
    };
    this.#listeners.add(own);
    if (!this.#isRunning) {
      this.#isRunning = true;
      void this.#run();
    }
    return () => {
      this.#listeners.delete(own);
    };
  }

  /** Tells that a domain was changed. */
  tell(uuid: string, detail: string): void {
    this.#emit({ kind: "domain-changed", uuid, detail });
  }

  #emit(event: HostEvent): void {
    if (this.#over.aborted) return;
    for (const listener of [...this.#listeners]) listener(event);
  }

  async #run(): Promise<void> {
    while (!this.#over.aborted) {
      await this.#follow();
      await this.#pause(RESTART_MS, this.#over);
    }
  }

  /** As long as one watch of the store lasts. */
  async #follow(): Promise<void> {
    const started = this.#reader.link.startWatch();
    const ended = new AbortController();
    const stop = (): void => {
      ended.abort();
    };
    started.child.stdout?.on("data", () => {
      this.#isDue = true;
      this.#wake();
    });
    started.child.stderr?.resume();
    started.child.once("error", stop);
    started.child.once("close", stop);
    this.#over.addEventListener("abort", stop, { once: true });
    try {
      await this.#lookWhenDue(ended.signal);
    } finally {
      this.#over.removeEventListener("abort", stop);
      started.giveUp();
    }
  }

  /** The store's first word only says that it listens: what was before is for the inventory. */
  async #lookWhenDue(ended: AbortSignal): Promise<void> {
    let isFollowing = false;
    let isPassing = false;
    while (!ended.aborted) {
      if (this.#isQuiet()) await this.#pause(isPassing ? LOOK_AGAIN_MS : LONGEST_PAUSE_MS, ended);
      if (this.#isQuiet() && !isPassing) continue;
      await this.#rest(ended);
      this.#isDue = false;
      const changes = await this.#look(ended);
      isPassing = changes?.isPassing ?? false;
      if (isFollowing && changes !== null) for (const uuid of changes.uuids) this.tell(uuid, "seen");
      else this.#emit({ kind: "resync" });
      isFollowing = changes !== null;
    }
  }

  #isQuiet(): boolean {
    return !this.#isDue;
  }

  /** Null where the look failed: what happened is not known, and the inventory that is due then says why. */
  async #look(ended: AbortSignal): Promise<Changes | null> {
    const call: Call = { signal: ended, timeoutMs: LOOK_TIMEOUT_MS, beforeSend: () => undefined };
    try {
      const sightings = sightingsIn(await see(this.#reader, "*", call));
      const now = new Map(sightings.map(({ domain, mark }) => [domain.uuid, mark]));
      const uuids = [...new Set([...this.#last.keys(), ...now.keys()])].filter(
        (uuid) => this.#last.get(uuid) !== now.get(uuid),
      );
      this.#last = now;
      return { uuids, isPassing: sightings.some((sighting) => sighting.isPassing) };
    } catch {
      return null;
    }
  }

  /** Ends early when the store tells something, and when the watch ends. */
  async #pause(milliseconds: number, ended: AbortSignal): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => {
      woken.abort();
    };
    await sleep(milliseconds, undefined, {
      signal: AbortSignal.any([woken.signal, ended]),
      ref: false,
    }).catch(() => undefined);
  }

  async #rest(ended: AbortSignal): Promise<void> {
    await sleep(SETTLE_MS, undefined, { signal: ended, ref: false }).catch(() => undefined);
  }
}

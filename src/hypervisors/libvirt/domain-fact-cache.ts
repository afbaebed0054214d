import type { Clock } from "../../lib/clock.ts";
import type { DomainFacts } from "./parse-domain.ts";

/** How long facts are believed although nothing told of a change: `virsh setmaxmem` and `setvcpus` have no event. */
const MAX_AGE_MS = 60_000;

interface Entry {
  readonly facts: DomainFacts;
  readonly readAtMs: number;
}

/**
 * What is known from domains' XML, by UUID, so that an inventory of a thousand domains is two calls and not a
 * thousand. Events drop what they change; a reading that was under way when its event came is not kept.
 */
export class DomainFactCache {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #readings = new Map<string, symbol>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Facts that are still believed. */
  get(uuid: string): DomainFacts | null {
    const entry = this.#entries.get(uuid);
    if (entry === undefined || this.#clock.monotonicMs() - entry.readAtMs > MAX_AGE_MS) return null;
    return entry.facts;
  }

  /** Reads facts anew and keeps them, unless they were dropped meanwhile. */
  async refresh(uuid: string, read: () => Promise<DomainFacts>): Promise<DomainFacts> {
    const reading = Symbol(uuid);
    this.#readings.set(uuid, reading);
    try {
      const facts = await read();
      if (this.#readings.get(uuid) === reading) {
        this.#entries.set(uuid, { facts, readAtMs: this.#clock.monotonicMs() });
      }
      return facts;
    } finally {
      if (this.#readings.get(uuid) === reading) this.#readings.delete(uuid);
    }
  }

  drop(uuid: string): void {
    this.#entries.delete(uuid);
    this.#readings.delete(uuid);
  }

  /** Forgets all domains but these. */
  retain(uuids: ReadonlySet<string>): void {
    for (const uuid of this.#entries.keys()) if (!uuids.has(uuid)) this.#entries.delete(uuid);
  }
}

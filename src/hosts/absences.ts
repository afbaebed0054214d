/**
 * Domains that should be on a host and were not seen, each since the first look that did not find it. Once is no proof:
 * see ABSENCE_MS. Times are of one monotonic clock, in milliseconds.
 */
export class Absences {
  readonly #provenAfterMs: number;
  #since = new Map<string, number>();

  constructor(provenAfterMs: number) {
    this.#provenAfterMs = provenAfterMs;
  }

  /** Those that a look at this time proves to be gone, if it does not find them either. */
  provenAt(time: number): string[] {
    return [...this.#since].filter(([, since]) => time - since >= this.#provenAfterMs).map(([uuid]) => uuid);
  }

  /** When to look again; Infinity where nothing is missed. */
  get dueAt(): number {
    return Math.min(...this.#since.values()) + this.#provenAfterMs;
  }

  /** A look at single domains did not find these. */
  missed(uuids: readonly string[], time: number): void {
    for (const uuid of uuids) if (!this.#since.has(uuid)) this.#since.set(uuid, time);
  }

  /** These are there, so an absence that comes later begins anew. */
  seen(uuids: readonly string[]): void {
    for (const uuid of uuids) this.#since.delete(uuid);
  }

  /** A complete inventory missed these, and no others. */
  missedAll(uuids: readonly string[], time: number): void {
    this.#since = new Map(uuids.map((uuid) => [uuid, this.#since.get(uuid) ?? time]));
  }
}

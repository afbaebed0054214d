import type { KeepaliveOptions } from "./options.ts";

/**
 * Finds out that the peer is gone. Any byte from it is a sign of life, a PONG being one that comes
 * for sure; `count` intervals without one mean that it is gone.
 */
export class Keepalive {
  readonly #timer: NodeJS.Timeout;
  #silentIntervals = 0;
  #suspended = false;

  constructor(options: KeepaliveOptions, ping: () => void, dead: () => void) {
    this.#timer = setInterval(() => {
      if (this.#suspended) return;
      if (this.#silentIntervals >= options.count) {
        dead();
        return;
      }
      this.#silentIntervals += 1;
      ping();
    }, options.intervalMs);
  }

  alive(): void {
    this.#silentIntervals = 0;
  }

  /** While we do not read, the peer's silence says nothing. */
  suspend(suspended: boolean): void {
    this.#suspended = suspended;
    this.#silentIntervals = 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

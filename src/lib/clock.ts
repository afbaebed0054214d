/** Time as the program sees it, so that tests can hold it. */
export interface Clock {
  now(): Date;
  /** Milliseconds that only ever grow; unrelated to the time of day. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
};

/** Pause before the next attempt. Pure but for the jitter, which is given. */

export interface Backoff {
  readonly firstMs: number;
  readonly longestMs: number;
}

export const STEP_BACKOFF: Backoff = { firstMs: 500, longestMs: 30_000 };
export const HOST_BACKOFF: Backoff = { firstMs: 1_000, longestMs: 5_000 };

/**
 * Milliseconds to wait after the given number of failed attempts (1 and up): doubling, at most `longestMs`, and
 * spread over its upper half by `jitter` (0 to 1), so that those who failed together do not come back together.
 */
export function backoffMs(failures: number, jitter: number, { firstMs, longestMs }: Backoff): number {
  const full = Math.min(longestMs, firstMs * 2 ** Math.min(30, Math.max(0, failures - 1)));
  return Math.round(full * (0.5 + jitter / 2));
}

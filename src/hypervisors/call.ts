/** What comes with every call to a host. */
export interface Call {
  /** Ends the wait for the call; what was sent may still happen. */
  readonly signal: AbortSignal;
  /** Our own limit for one request to the host, in milliseconds. */
  readonly timeoutMs: number;
  /**
   * Called in the same tick as the write to the host; throws when the caller has lost the right to change it
   * (its lease is over). A driver calls it before each request that can change the host.
   */
  readonly beforeSend: () => void;
}

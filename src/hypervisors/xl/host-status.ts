/**
 * Exit statuses by which the host program tells what it found; see host-program.ts. A program that it runs and that
 * ends with one of these, or with ssh's 255, ends with 239.
 */
export const HOST_STATUS = {
  /** A later owner has the host, or nobody was ever let in. */
  fenced: 240,
  /** A change that came before has not ended in the time we wait. */
  busy: 241,
} as const;

/** What a change of a domain found. */
export const DOMAIN_STATUS = {
  ...HOST_STATUS,
  absent: 242,
  foreign: 243,
  invalidState: 244,
  /** A file or a bridge that the definition names is not there. */
  missing: 245,
  alreadyExists: 246,
  /** What was to be written did not come whole. */
  cut: 247,
} as const;

/** First line of stdout of what goes on for a while: all that stood in its way is past. */
export const BEGAN_WORD = "began";

/** Channels of wake-ups of the event log. */
export const WRITTEN = "event_written";
export const NUMBERED = "event_numbered";

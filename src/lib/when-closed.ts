import type { Readable } from "node:stream";

/** Calls back once when the stream is closed; at once where it is already, for then its event has passed. */
export function whenClosed(stream: Readable, then: () => void): void {
  if (stream.closed) then();
  else stream.once("close", then);
}

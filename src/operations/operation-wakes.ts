import { WRITTEN } from "../events/event-channels.ts";
import { CANCEL_ASKED, ENDED, QUEUED, type Wakes } from "./operation-channels.ts";

/** To be called after the commit of a transaction that queued, cancelled or retried an operation. */
export function wakeAfterChange(wakes: Pick<Wakes, "notify">): void {
  // All go out in one statement; one that nobody listens to costs nothing.
  for (const channel of [QUEUED, CANCEL_ASKED, ENDED, WRITTEN]) wakes.notify(channel);
}

import { setTimeout as sleep } from "node:timers/promises";
import { eventView } from "./event-schemas.ts";
import type { EventRecord } from "./event-store.ts";

export interface EventStreamOptions {
  /** Longest silence; then a comment shows both sides that the connection lives. */
  readonly heartbeatSeconds: number;
  /** Asked before each portion and each comment; false ends the stream, null: nobody can tell at the moment. */
  readonly mayGoOn: () => Promise<boolean | null>;
}

// A portion that nobody can say may be sent is held back, and asked about again.
const ASK_AGAIN_MS = 1_000;

/** Writes events as text/event-stream until `portions` ends or the reader may not go on. */
export async function* eventStream(
  portions: AsyncGenerator<readonly EventRecord[], void>,
  { heartbeatSeconds, mayGoOn }: EventStreamOptions,
): AsyncGenerator<string, void> {
  // Sends the headers, so that the client knows that it is connected.
  yield ": connected\n\n";
  let next = portions.next();
  try {
    for (;;) {
      const portion = await orSilence(next, heartbeatSeconds);
      const allowed = portion?.done !== true && (await mayGoOn());
      if (portion?.done === true || allowed === false) return;
      if (portion === null || allowed === null) {
        yield ": heartbeat\n\n";
        if (portion !== null) await sleep(ASK_AGAIN_MS);
        continue;
      }
      yield portion.value.map(writeEvent).join("");
      next = portions.next();
    }
  } finally {
    // Not awaited: it ends when the connection has closed, which comes after this stream's own end.
    void portions.return();
  }
}

/** What comes next, or null when nothing came for so long. */
async function orSilence<T>(next: Promise<T>, seconds: number): Promise<T | null> {
  const { promise: silence, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(() => {
    resolve(null);
  }, seconds * 1000);
  try {
    return await Promise.race([next, silence]);
  } finally {
    clearTimeout(timer);
  }
}

/** One event; JSON has no line breaks of its own, so it is one line of data. */
function writeEvent(event: EventRecord): string {
  return `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(eventView(event))}\n\n`;
}

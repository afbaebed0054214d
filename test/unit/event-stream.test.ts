import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { EventRecord } from "../../src/events/event-store.ts";
import { eventStream } from "../../src/events/event-stream.ts";
import { newId } from "../../src/lib/ids.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function event(seq: bigint): EventRecord {
  const subject = { kind: "vm", id: newId(), name: "web" };
  return {
    ...{ seq, id: newId(), type: "vm.ready", at: new Date(), projectId: null, subject },
    ...{ operationId: null, data: {} },
  };
}

/** Reads the stream to its end, with all that its time brings. */
async function readAll(stream: AsyncGenerator<string, void>): Promise<string> {
  let text = "";
  const reading = (async () => {
    for await (const chunk of stream) text += chunk;
  })();
  await vi.advanceTimersByTimeAsync(120_000);
  await reading;
  return text;
}

async function* portionsOf(...seqs: bigint[]): AsyncGenerator<readonly EventRecord[], void> {
  for (const seq of seqs) yield [event(seq)];
}

it("holds a portion back while nobody can tell whether the reader may have it, and loses none", async () => {
  const answers = [true, null, null];
  const mayGoOn = async () => (answers.length > 0 ? (answers.shift() ?? null) : true);
  const text = await readAll(eventStream(portionsOf(1n, 2n, 3n), { heartbeatSeconds: 15, mayGoOn }));
  expect([...text.matchAll(/^(id: \d+|: heartbeat)$/gm)].map(([line]) => line)).toEqual([
    ...["id: 1", ": heartbeat", ": heartbeat", "id: 2", "id: 3"],
  ]);
});

it("sends nothing more to a reader that may not go on", async () => {
  const answers = [true, null, false];
  const mayGoOn = async () => answers.shift() ?? null;
  const text = await readAll(eventStream(portionsOf(1n, 2n), { heartbeatSeconds: 15, mayGoOn }));
  expect(text).toContain("id: 1");
  expect(text).not.toContain("id: 2");
});

import { expect, it } from "vitest";
import type { EventRecord } from "../../src/events/event-store.ts";
import { eventStream } from "../../src/events/event-stream.ts";
import { newId } from "../../src/lib/ids.ts";

function event(seq: bigint): EventRecord {
  const subject = { kind: "vm", id: newId(), name: "web" };
  return {
    ...{ seq, id: newId(), type: "vm.ready", at: new Date(), projectId: null, subject },
    ...{ operationId: null, data: {} },
  };
}

async function readAll(stream: AsyncGenerator<string, void>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += chunk;
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

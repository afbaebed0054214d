import { PassThrough } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { SideConnections } from "../../../../src/hypervisors/libvirt/side-connections.ts";
import { LibvirtConnection } from "../../../../src/libvirt-rpc/connection.ts";
import { call } from "./fake-calls.ts";

const settings = { callTimeoutMs: 1000, maxCallsInFlight: 4, keepalive: { intervalMs: 60_000, count: 3 } };

function pool(limit: number) {
  const opened: LibvirtConnection[] = [];
  const connections = new SideConnections(async () => {
    const connection = new LibvirtConnection(new PassThrough(), settings);
    opened.push(connection);
    return connection;
  }, limit);
  return { connections, opened };
}

const answered = new Error("answered");
const isAnswered = (error: unknown): boolean => error === answered;

describe("connections beside the main one", () => {
  it("are used again after an answer, be it a refusal", async () => {
    const { connections, opened } = pool(2);
    await connections.use(call, () => Promise.resolve(1), isAnswered);
    await expect(connections.use(call, () => Promise.reject(answered), isAnswered)).rejects.toBe(answered);
    await connections.use(call, () => Promise.resolve(1), isAnswered);
    expect(opened).toHaveLength(1);
    await connections.close();
    expect(opened[0]?.closed).toBe(true);
  });

  it("are thrown away with a call that was not answered", async () => {
    const { connections, opened } = pool(2);
    const unanswered = connections.use(call, () => Promise.reject(new Error("time-out")), isAnswered);
    await expect(unanswered).rejects.toThrow("time-out");
    await connections.use(call, () => Promise.resolve(1), isAnswered);
    expect(opened.map(({ closed }) => closed)).toEqual([true, false]);
    await connections.close();
  });

  it("that the host closed are not used again", async () => {
    const { connections, opened } = pool(2);
    await connections.use(call, () => Promise.resolve(1), isAnswered);
    await opened[0]?.close();
    await connections.use(call, () => Promise.resolve(1), isAnswered);
    expect(opened).toHaveLength(2);
    await connections.close();
  });

  it("are limited: who comes later waits for a place, in order", async () => {
    const { connections, opened } = pool(2);
    const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<undefined>());
    const begun: number[] = [];
    const uses = gates.map(({ promise }, index) =>
      connections.use(
        call,
        () => {
          begun.push(index);
          return promise;
        },
        isAnswered,
      ),
    );
    await nextTurn();
    expect(begun).toEqual([0, 1]);
    gates[1]?.resolve(undefined);
    await uses[1];
    await nextTurn();
    expect(begun).toEqual([0, 1, 2]);
    for (const gate of gates) gate.resolve(undefined);
    await Promise.all(uses);
    expect(begun).toEqual([0, 1, 2, 3]);
    expect(opened).toHaveLength(2);
    await connections.close();
  });

  it("let a waiting call be given up, and the next one in", async () => {
    const { connections } = pool(1);
    const gate = Promise.withResolvers<undefined>();
    const first = connections.use(call, () => gate.promise, isAnswered);
    const stop = new AbortController();
    const second = connections.use({ ...call, signal: stop.signal }, () => Promise.resolve(2), isAnswered);
    const third = connections.use(call, () => Promise.resolve(3), isAnswered);
    const reason = new Error("given up");
    stop.abort(reason);
    await expect(second).rejects.toBe(reason);
    gate.resolve(undefined);
    await first;
    expect(await third).toBe(3);
    await connections.close();
  });

  it("are refused after the close, also to those who wait", async () => {
    const { connections } = pool(1);
    const gate = Promise.withResolvers<undefined>();
    const first = connections.use(call, () => gate.promise, isAnswered);
    const waiting = connections.use(call, () => Promise.resolve(2), isAnswered);
    const refused = expect(waiting).rejects.toMatchObject({ reason: "unreachable" });
    await nextTurn();
    await connections.close();
    await refused;
    gate.resolve(undefined);
    await first;
    await expect(connections.use(call, () => Promise.resolve(1), isAnswered)).rejects.toMatchObject({
      reason: "unreachable",
    });
  });

  it("that cannot be opened give their place back", async () => {
    const connections = new SideConnections(() => Promise.reject(new Error("refused")), 1);
    for (const _try of [1, 2]) {
      await expect(connections.use(call, () => Promise.resolve(1), isAnswered)).rejects.toThrow("refused");
    }
  });
});

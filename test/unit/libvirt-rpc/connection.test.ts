import { getEventListeners } from "node:events";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { string, struct, uint } from "../../../src/libvirt-rpc/codec.ts";
import {
  CallTimeoutError,
  ConnectionError,
  type ConnectOptions,
  connectGetHostname,
  connectLibvirt,
  domainGetXmlDesc,
  LibvirtError,
  nodeGetFreeMemory,
  storagePoolLookupByName,
} from "../../../src/libvirt-rpc/index.ts";
import { FakeDaemon } from "./fake-daemon.ts";

const HOSTNAME = connectGetHostname.result;
const web = { name: "web", uuid: "00112233-4455-6677-8899-aabbccddeeff", id: 3 };

let daemon: FakeDaemon;

beforeEach(async () => {
  daemon = await FakeDaemon.start();
});

afterEach(async () => {
  await daemon[Symbol.asyncDispose]();
});

function connect(options: Partial<ConnectOptions> = {}) {
  return connectLibvirt({
    transport: { kind: "unix", path: daemon.path },
    uri: "test:///default",
    ...options,
  });
}

async function callsArrived(count: number): Promise<void> {
  await vi.waitFor(() => {
    expect(daemon.peer.calls.length).toBe(count);
  });
}

function callAt(index: number) {
  const call = daemon.peer.calls[index];
  if (call === undefined) throw new Error(`call ${index} has not come`);
  return call;
}

describe("connecting", () => {
  test("opens the URI that was given", async () => {
    const connection = await connect();
    const open = daemon.peer.received.find(({ procedure }) => procedure === 1);
    expect(open?.body.toString("latin1")).toContain("test:///default");
    await connection.close();
  });

  test("asks polkit where the daemon wants that", async () => {
    daemon.behave({
      authTypes: [2],
      onMessage: (message, peer) => {
        if (message.procedure !== 70) return false;
        peer.reply(message, struct({ complete: uint }), { complete: 1 });
        return true;
      },
    });
    await (await connect()).close();
    expect(daemon.peer.received.some(({ procedure }) => procedure === 70)).toBe(true);
  });

  test("says so when polkit refuses", async () => {
    daemon.behave({
      authTypes: [2],
      onMessage: (message, peer) => {
        if (message.procedure === 70) peer.replyError(message, 45, "authentication failed");
        return message.procedure === 70;
      },
    });
    await expect(connect()).rejects.toMatchObject({ name: "ConnectionError", kind: "auth" });
  });

  test("refuses SASL by name instead of failing later", async () => {
    daemon.behave({ authTypes: [1] });
    await expect(connect()).rejects.toThrow(/SASL/);
    await expect(connect()).rejects.toMatchObject({ kind: "auth" });
  });

  test("gives up a daemon that accepts and then says nothing", async () => {
    daemon.behave({ onMessage: () => true });
    await expect(connect({ connectTimeoutMs: 50 })).rejects.toMatchObject({ kind: "timeout" });
    await vi.waitFor(() => {
      expect(daemon.peer.socket.destroyed).toBe(true);
    });
  });

  test("ends with the reason of its signal", async () => {
    daemon.behave({ onMessage: () => true });
    const abort = new AbortController();
    const reason = new Error("the service is going down");
    const connecting = connect({ signal: abort.signal });
    const rejected = expect(connecting).rejects.toBe(reason);
    abort.abort(reason);
    await rejected;
    await expect(connect({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test("passes on the daemon's error when it cannot open the URI", async () => {
    daemon.behave({
      onMessage: (message, peer) => {
        if (message.procedure === 1) peer.replyError(message, 5, "no connection driver available");
        return message.procedure === 1;
      },
    });
    await expect(connect()).rejects.toMatchObject({
      name: "LibvirtError",
      code: 5,
      procedure: "connectOpen",
    });
  });

  test("tells where nobody listens", async () => {
    const transport = { kind: "unix", path: `${daemon.path}-not-there` } as const;
    await expect(connect({ transport })).rejects.toMatchObject({ kind: "refused" });
  });
});

describe("calls", () => {
  test("get their own replies, whatever order those come in", async () => {
    const connection = await connect();
    const first = connection.call(connectGetHostname, undefined);
    const second = connection.call(nodeGetFreeMemory, undefined);
    await callsArrived(2);
    daemon.peer.reply(callAt(1), nodeGetFreeMemory.result, { freeMem: 42n });
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "n1" });
    expect(await Promise.all([first, second])).toEqual([{ hostname: "n1" }, { freeMem: 42n }]);
    await connection.close();
  });

  test("carry the daemon's error as it was sent", async () => {
    const connection = await connect();
    const failing = connection.call(domainGetXmlDesc, { domain: web, flags: 0 });
    await callsArrived(1);
    daemon.peer.replyError(callAt(0), 42, "Domain not found");
    const error: unknown = await failing.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(LibvirtError);
    expect(error).toMatchObject({
      procedure: "domainGetXmlDesc",
      code: 42,
      domain: 7,
      level: 2,
      message: "Domain not found",
      str1: "one",
      str2: null,
      int1: 5,
      int2: 6,
      unsupported: false,
    });
    await connection.close();
  });

  test("tell when the daemon does not know a procedure", async () => {
    const connection = await connect();
    const failing = connection.call(connectGetHostname, undefined);
    await callsArrived(1);
    daemon.peer.replyError(callAt(0), 39, "unknown procedure: 999");
    await expect(failing).rejects.toMatchObject({ unsupported: true });
    await connection.close();
  });

  test("go out four at a time, in order", async () => {
    const connection = await connect();
    const names = Array.from({ length: 7 }, (_, i) => `pool-${i}`);
    const calls = names.map((name) => connection.call(storagePoolLookupByName, { name }));
    await callsArrived(4);
    for (let i = 0; i < names.length; i++) {
      expect(daemon.peer.calls.length).toBe(Math.min(i + 4, names.length));
      const call = callAt(i);
      expect(call.body.toString("latin1")).toContain(`pool-${i}`);
      daemon.peer.reply(call, storagePoolLookupByName.result, {
        pool: { name: `pool-${i}`, uuid: web.uuid },
      });
      await calls[i];
      if (i + 4 < names.length) await callsArrived(i + 5);
    }
    await connection.close();
  });

  test("end at their deadline, and the late reply is dropped", async () => {
    const connection = await connect({ maxCallsInFlight: 1 });
    const late = connection.call(connectGetHostname, undefined, { timeoutMs: 30 });
    const next = connection.call(connectGetHostname, undefined);
    await expect(late).rejects.toBeInstanceOf(CallTimeoutError);
    await callsArrived(2);
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "too late" });
    daemon.peer.reply(callAt(1), HOSTNAME, { hostname: "n1" });
    expect(await next).toEqual({ hostname: "n1" });
    await connection.close();
  });

  test("end with the reason of their signal, sent or still waiting", async () => {
    const connection = await connect({ maxCallsInFlight: 1 });
    const abort = new AbortController();
    const reason = new Error("not needed any more");
    const calls = [1, 2].map(() => connection.call(connectGetHostname, undefined, { signal: abort.signal }));
    const outcome = Promise.allSettled(calls);
    await callsArrived(1);
    abort.abort(reason);
    expect(await outcome).toEqual([
      { status: "rejected", reason },
      { status: "rejected", reason },
    ]);
    const after = connection.call(connectGetHostname, undefined);
    await callsArrived(2);
    daemon.peer.reply(callAt(1), HOSTNAME, { hostname: "n1" });
    expect(await after).toEqual({ hostname: "n1" });
    await connection.close();
  });

  test("are not sent when beforeSend throws, and the next one is", async () => {
    const connection = await connect({ maxCallsInFlight: 1 });
    const fenced = new Error("the lease is over");
    const beforeSend = (): void => {
      throw fenced;
    };
    await expect(connection.call(connectGetHostname, undefined, { beforeSend })).rejects.toBe(fenced);
    const next = connection.call(nodeGetFreeMemory, undefined);
    await callsArrived(1);
    expect(callAt(0).procedure).toBe(nodeGetFreeMemory.number);
    daemon.peer.reply(callAt(0), nodeGetFreeMemory.result, { freeMem: 1n });
    await next;
    await connection.close();
  });

  test("ask beforeSend when they are sent, not when they are queued", async () => {
    const connection = await connect({ maxCallsInFlight: 1 });
    const first = connection.call(connectGetHostname, undefined);
    const beforeSend = vi.fn();
    const second = connection.call(connectGetHostname, undefined, { beforeSend });
    await callsArrived(1);
    expect(beforeSend).not.toHaveBeenCalled();
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "n1" });
    await first;
    expect(beforeSend).toHaveBeenCalledTimes(1);
    await callsArrived(2);
    daemon.peer.reply(callAt(1), HOSTNAME, { hostname: "n1" });
    await second;
    await connection.close();
  });

  test("are refused before they are sent when the protocol cannot carry them", async () => {
    const connection = await connect();
    const wrapping = connection.call(domainGetXmlDesc, { domain: web, flags: 2 ** 32 });
    await expect(wrapping).rejects.toMatchObject({ name: "XdrError" });
    expect(daemon.peer.calls).toEqual([]);
    await connection.close();
  });

  test("leave nothing on the signal they were given", async () => {
    const connection = await connect();
    const { signal } = new AbortController();
    const call = connection.call(connectGetHostname, undefined, { signal, timeoutMs: 2 ** 40 });
    await callsArrived(1);
    expect(getEventListeners(signal, "abort").length).toBe(1);
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "n1" });
    await call;
    expect(getEventListeners(signal, "abort")).toEqual([]);
    await connection.close();
  });

  test("reject when their reply cannot be read, and only they", async () => {
    const connection = await connect();
    const unreadable = connection.call(connectGetHostname, undefined);
    await callsArrived(1);
    daemon.peer.reply(callAt(0), struct({ length: uint }), { length: 4_000_000_000 });
    await expect(unreadable).rejects.toMatchObject({ kind: "protocol" });
    const tooLong = connection.call(connectGetHostname, undefined);
    await callsArrived(2);
    daemon.peer.reply(callAt(1), struct({ hostname: string, more: uint }), { hostname: "n1", more: 1 });
    await expect(tooLong).rejects.toThrow(/connectGetHostname.*4 bytes follow/);
    const next = connection.call(connectGetHostname, undefined);
    await callsArrived(3);
    daemon.peer.reply(callAt(2), HOSTNAME, { hostname: "n1" });
    expect(await next).toEqual({ hostname: "n1" });
    await connection.close();
  });
});

describe("the end of a connection", () => {
  test.each([
    ["the daemon hangs up", "closed", (): unknown => daemon.peer.socket.destroy()],
    [
      "the daemon sends rubbish",
      "protocol",
      (): unknown => daemon.peer.socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
  ])("%s: every call rejects, sent or waiting, and later ones too", async (_what, kind, end) => {
    const connection = await connect({ maxCallsInFlight: 2 });
    const closed = vi.fn();
    connection.onClose(closed);
    const calls = Array.from({ length: 5 }, () => connection.call(connectGetHostname, undefined));
    const outcome = Promise.allSettled(calls);
    await callsArrived(2);
    end();
    for (const result of await outcome) {
      expect(result.status === "rejected" && result.reason).toMatchObject({ name: "ConnectionError", kind });
    }
    await expect(connection.call(connectGetHostname, undefined)).rejects.toMatchObject({ kind });
    expect(connection.closed).toBe(true);
    expect(closed).toHaveBeenCalledTimes(1);
  });

  test("close() rejects what is under way and tells the daemon", async () => {
    const connection = await connect();
    const call = connection.call(connectGetHostname, undefined);
    const rejected = expect(call).rejects.toMatchObject({ kind: "closed" });
    await callsArrived(1);
    await connection.close();
    await rejected;
    await vi.waitFor(() => {
      expect(daemon.peer.calls.at(-1)?.procedure).toBe(2);
    });
    await connection.close();
  });

  test("close() does not wait for a daemon that no longer reads", async () => {
    const connection = await connect();
    daemon.peer.socket.pause();
    const xml = "x".repeat(4_000_000);
    const call = connection.call(storagePoolLookupByName, { name: xml });
    const rejected = expect(call).rejects.toBeInstanceOf(ConnectionError);
    await connection.close();
    await rejected;
  });

  test("random bytes from the daemon reject this connection at most", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 120 }), async (bytes) => {
        const connection = await connect();
        const call = connection.call(connectGetHostname, undefined);
        await callsArrived(1);
        const outcome = call.then(
          () => "answered",
          (error: unknown) => error,
        );
        daemon.peer.socket.end(Buffer.from(bytes));
        expect(await outcome).toBeInstanceOf(ConnectionError);
        await connection.close();
      }),
      { numRuns: 60 },
    );
  });

  test("a message that is not for a client is refused", async () => {
    const connection = await connect();
    const closed = vi.fn();
    connection.onClose(closed);
    daemon.peer.reply(
      { program: 0x2000_8086, procedure: 1, type: 0, serial: 1, status: 0, body: Buffer.alloc(0) },
      uint,
      0,
    );
    daemon.peer.socket.write(Buffer.from("0000001c200080860000000100000001000000050000000100000000", "hex"));
    await vi.waitFor(() => {
      expect(closed).toHaveBeenCalledWith(expect.objectContaining({ kind: "protocol" }));
    });
  });
});

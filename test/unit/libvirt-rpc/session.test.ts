import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { struct, uint } from "../../../src/libvirt-rpc/codec.ts";
import {
  connectDomainEventCallbackRegisterAny,
  connectGetHostname,
  type DomainEvent,
  LibvirtSession,
  type SessionOptions,
  type SessionState,
} from "../../../src/libvirt-rpc/index.ts";
import { domain } from "../../../src/libvirt-rpc/structures.ts";
import { FakeDaemon, type FakeDaemonOptions } from "./fake-daemon.ts";

const web = { name: "web", uuid: "00112233-4455-6677-8899-aabbccddeeff", id: 3 };
const lifecycle = struct({ callbackId: uint, domain, event: uint, detail: uint });

let daemon: FakeDaemon;
let session: LibvirtSession;
let states: { state: SessionState; message: string | undefined }[];

/** Registers every event but the guest agent's, which this daemon is too old for. */
const registering: FakeDaemonOptions = {
  onMessage: (message, peer) => {
    if (message.procedure !== connectDomainEventCallbackRegisterAny.number) return false;
    const eventId = message.body.readInt32BE(0);
    if (eventId === 18) peer.replyError(message, 3, "unsupported event ID 18");
    else peer.reply(message, connectDomainEventCallbackRegisterAny.result, { callbackId: eventId + 100 });
    return true;
  },
};

beforeEach(async () => {
  daemon = await FakeDaemon.start(registering);
});

afterEach(async () => {
  await session.close();
  await daemon[Symbol.asyncDispose]();
});

function start(options: Partial<SessionOptions> = {}): LibvirtSession {
  const transport = { kind: "unix", path: daemon.path } as const;
  const backoff = { initialMs: 5, maxMs: 40 };
  session = new LibvirtSession({ transport, uri: "test:///default", backoff, ...options });
  states = [];
  session.onState((state, error) => states.push({ state, message: error?.message }));
  session.start();
  return session;
}

async function connected(times: number): Promise<void> {
  await vi.waitFor(() => {
    expect(states.filter(({ state }) => state === "connected").length).toBe(times);
  });
}

test("registers the events anew on every connection, for all domains", async () => {
  start({ events: ["lifecycle", "ioError"] });
  await connected(1);
  daemon.peer.socket.destroy();
  await connected(2);
  expect(daemon.peers.map((peer) => peer.calls.map(({ body }) => body.toString("hex")))).toEqual([
    ["0000000000000000", "0000000600000000"],
    ["0000000000000000", "0000000600000000"],
  ]);
  expect(states.map(({ state }) => state)).toEqual(["connected", "disconnected", "connected"]);
  expect(states[1]?.message).toContain("the daemon closed the connection");
});

test("hands on the events of whichever connection there is", async () => {
  const seen: DomainEvent[] = [];
  start({ events: ["lifecycle"] }).onEvent((event) => seen.push(event));
  for (const times of [1, 2]) {
    await connected(times);
    daemon.peer.event(318, lifecycle, { callbackId: 100, domain: web, event: times, detail: 0 });
    await vi.waitFor(() => {
      expect(seen.at(-1)).toMatchObject({ kind: "lifecycle", event: times });
    });
    if (times === 1) daemon.peer.socket.destroy();
  }
  expect(seen.length).toBe(2);
});

test("leaves out an event the daemon is too old for", async () => {
  start({ events: ["agentLifecycle", "reboot"] });
  await connected(1);
  expect(daemon.peer.calls.length).toBe(2);
});

test("goes on trying, waiting longer each time, and tells every failure", async () => {
  const random = vi.fn(() => 0.5);
  daemon.behave({
    onMessage: (_message, peer) => {
      peer.socket.destroy();
      return true;
    },
  });
  start({ random });
  await vi.waitFor(() => {
    expect(states.length).toBeGreaterThan(4);
  });
  expect(states.every(({ state }) => state === "disconnected")).toBe(true);
  expect(random.mock.calls.length).toBeGreaterThan(3);
  daemon.behave(registering);
  await connected(1);
});

test("calls go to the connection there is, and are refused at once while there is none", async () => {
  start();
  await expect(session.call(connectGetHostname, undefined)).rejects.toMatchObject({ kind: "closed" });
  await connected(1);
  const call = session.call(connectGetHostname, undefined);
  await vi.waitFor(() => {
    expect(daemon.peer.calls.length).toBe(1);
  });
  const [sent] = daemon.peer.calls;
  if (sent !== undefined) daemon.peer.reply(sent, connectGetHostname.result, { hostname: "n1" });
  expect(await call).toEqual({ hostname: "n1" });
});

test("close() ends a session that waits for its next attempt, and one that is connecting", async () => {
  daemon.behave({ onMessage: () => true });
  start({ backoff: { initialMs: 3_600_000, maxMs: 3_600_000 } });
  await vi.waitFor(() => {
    expect(daemon.peers.length).toBe(1);
  });
  await session.close();
  daemon.behave({
    onMessage: (_message, peer) => {
      peer.socket.destroy();
      return true;
    },
  });
  start({ backoff: { initialMs: 3_600_000, maxMs: 3_600_000 } });
  await vi.waitFor(() => {
    expect(states.length).toBe(1);
  });
  await session.close();
  expect(session.connection).toBeNull();
});

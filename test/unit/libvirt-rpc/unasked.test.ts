import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { string, struct, uint } from "../../../src/libvirt-rpc/codec.ts";
import {
  type ConnectOptions,
  connectGetHostname,
  connectLibvirt,
  type DomainEvent,
} from "../../../src/libvirt-rpc/index.ts";
import { domain } from "../../../src/libvirt-rpc/structures.ts";
import { FakeDaemon, type FakeDaemonOptions } from "./fake-daemon.ts";

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

describe("keepalive", () => {
  test("answers the daemon's pings", async () => {
    const connection = await connect();
    daemon.peer.ping();
    await vi.waitFor(() => {
      expect(daemon.peer.received.at(-1)).toMatchObject({ program: 0x6b65_6570, procedure: 2, type: 2 });
    });
    await connection.close();
  });

  test("gives up a daemon that falls silent", async () => {
    const connection = await connect({ keepalive: { intervalMs: 20, count: 2 } });
    const call = connection.call(connectGetHostname, undefined);
    await expect(call).rejects.toMatchObject({ kind: "timeout" });
    const pings = daemon.peer.received.filter(({ program }) => program === 0x6b65_6570);
    expect(pings.length).toBe(2);
  });

  test("keeps a daemon that answers pings and nothing else", async () => {
    const pong: FakeDaemonOptions = {
      onMessage: (message, peer) => {
        const isPing = message.program === 0x6b65_6570;
        if (isPing) peer.ping();
        return isPing;
      },
    };
    daemon.behave(pong);
    const connection = await connect({ keepalive: { intervalMs: 10, count: 1 } });
    await vi.waitFor(() => {
      const pings = daemon.peer.received.filter(
        ({ program, procedure }) => program === 0x6b65_6570 && procedure === 1,
      );
      expect(pings.length).toBeGreaterThan(5);
    });
    expect(connection.closed).toBe(false);
    await connection.close();
  });
});

describe("events", () => {
  const lifecycle = struct({ callbackId: uint, domain, event: uint, detail: uint });

  test("reach every listener until it is removed", async () => {
    const connection = await connect();
    const seen: DomainEvent[] = [];
    const stop = connection.onEvent((event) => seen.push(event));
    daemon.peer.event(318, lifecycle, { callbackId: 1, domain: web, event: 2, detail: 0 });
    await vi.waitFor(() => {
      expect(seen).toEqual([{ kind: "lifecycle", callbackId: 1, domain: web, event: 2, detail: 0 }]);
    });
    stop();
    daemon.peer.event(318, lifecycle, { callbackId: 1, domain: web, event: 3, detail: 0 });
    const call = connection.call(connectGetHostname, undefined);
    await callsArrived(1);
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "n1" });
    await call;
    expect(seen.length).toBe(1);
    await connection.close();
  });

  test("of a kind we do not know are passed over", async () => {
    const connection = await connect();
    daemon.peer.event(999, string, "from a newer daemon");
    const call = connection.call(connectGetHostname, undefined);
    await callsArrived(1);
    daemon.peer.reply(callAt(0), HOSTNAME, { hostname: "n1" });
    expect(await call).toEqual({ hostname: "n1" });
    await connection.close();
  });
});

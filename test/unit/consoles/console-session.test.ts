import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, it } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { ConsoleEnd } from "../../../src/consoles/console-close.ts";
import { runSession, type SessionLimits } from "../../../src/consoles/console-session.ts";

const HOUR_MS = 3_600_000;
const LIMITS: SessionLimits = {
  idleMs: HOUR_MS,
  lifetimeMs: HOUR_MS,
  checkMs: HOUR_MS,
  maxWaitingBytes: 100_000,
};
const PATIENCE = { timeout: 30_000, interval: 5 };

let server: WebSocketServer;

beforeEach(async () => {
  server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
});
afterEach(() => {
  for (const client of server.clients) client.terminate();
  server.close();
});

/** A host's side whose writes can be held up, and whose reads are counted. */
class Guest extends Duplex {
  readonly heard: Buffer[] = [];
  asked = 0;
  deaf: (() => void) | null = null;
  isDeaf = false;
  override _read(): void {
    this.asked++;
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.heard.push(chunk);
    if (this.isDeaf) this.deaf = done;
    else done();
  }
}

interface Scene {
  readonly client: WebSocket;
  readonly guest: Guest;
  readonly ended: Promise<ConsoleEnd>;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly received: Buffer[];
  allowed: boolean | null;
}

async function start(
  limits: Partial<SessionLimits> = {},
  options: { autoPong?: boolean } = {},
): Promise<Scene> {
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, options);
  const [[socket]] = (await Promise.all([once(server, "connection"), once(client, "open")])) as [
    [WebSocket],
    unknown,
  ];
  const guest = new Guest();
  const received: Buffer[] = [];
  client.on("message", (data: Buffer) => received.push(data));
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    client.once("close", (code, reason) => {
      resolve({ code, reason: String(reason) });
    });
  });
  const scene = { client, guest, closed, received, allowed: true as boolean | null };
  const ended = runSession({
    socket,
    stream: guest,
    limits: { ...LIMITS, ...limits },
    mayGoOn: async () => scene.allowed,
    explainEnd: async () => ({ code: 4409, reason: "taken over" }),
  });
  return Object.assign(scene, { ended });
}

it("carries bytes both ways, text too", async () => {
  const { client, guest, received } = await start();
  guest.push("login: ");
  client.send("root");
  client.send(Buffer.from([0, 255]));
  await expect.poll(() => Buffer.concat(guest.heard).toString("latin1"), PATIENCE).toBe("root\x00\xff");
  await expect.poll(() => Buffer.concat(received).toString(), PATIENCE).toBe("login: ");
});

it("closes with the reason when the host's side ends or fails, and lets go of it when the client leaves", async () => {
  const one = await start();
  one.guest.push(null);
  one.guest.destroy(new Error("stream had I/O failure"));
  expect(await one.closed).toEqual({ code: 4409, reason: "taken over" });
  const other = await start();
  other.client.close(1000);
  expect(await other.ended).toMatchObject({ code: 1000 });
  expect(other.guest.destroyed).toBe(true);
});

it("closes at once where the host's side ended before it began", async () => {
  const { port } = server.address() as AddressInfo;
  const client = new WebSocket(`ws://127.0.0.1:${port}`);
  const [[socket]] = (await Promise.all([once(server, "connection"), once(client, "open")])) as [
    [WebSocket],
    unknown,
  ];
  const guest = new Guest();
  guest.destroy();
  await once(guest, "close");
  const explainEnd = async () => ({ code: 1000, reason: "off" });
  const closed = once(client, "close");
  await runSession({ socket, stream: guest, limits: LIMITS, mayGoOn: async () => true, explainEnd });
  expect((await closed)[0]).toBe(1000);
});

it("closes one that is silent, one that lasts too long, and one whose token is over", async () => {
  expect((await (await start({ idleMs: 30 })).closed).code).toBe(4408);
  expect((await (await start({ lifetimeMs: 30 })).closed).code).toBe(4408);
  const checked = await start({ checkMs: 10 });
  checked.allowed = null;
  await expect.poll(() => checked.client.readyState, PATIENCE).toBe(WebSocket.OPEN);
  checked.allowed = false;
  expect((await checked.closed).code).toBe(4401);
});

it("does not count one as silent while bytes come", async () => {
  const { client, guest, closed } = await start({ idleMs: 400 });
  for (let turn = 0; turn < 10; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 80));
    if (turn % 2 === 0) client.send("x");
    else guest.push("y");
  }
  expect(client.readyState).toBe(WebSocket.OPEN);
  expect((await closed).code).toBe(4408);
});

it("cuts off a client that does not answer", async () => {
  const { ended, guest } = await start({ checkMs: 20 }, { autoPong: false });
  expect(await ended).toMatchObject({ code: 1006 });
  expect(guest.destroyed).toBe(true);
});

it("reads no more of the host than a slow client takes, and no more of the client than the guest hears", async () => {
  const { client, guest, received } = await start();
  client.pause();
  const piece = Buffer.alloc(50_000);
  let given = 0;
  // As much as the session asks for; the sockets in between hold some megabytes.
  while (given < 200 && (given === 0 || !guest.isPaused())) {
    guest.push(piece);
    given++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(given).toBeLessThan(200);
  client.resume();
  await expect.poll(() => Buffer.concat(received).length, PATIENCE).toBe(given * piece.length);
  expect(guest.isPaused()).toBe(false);

  guest.isDeaf = true;
  for (let turn = 0; turn < 400; turn++) client.send(piece);
  let before = -1;
  while (guest.writableLength !== before) {
    before = guest.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  expect(guest.writableLength).toBeLessThan(4_000_000);
  guest.isDeaf = false;
  guest.deaf?.();
  await expect.poll(() => Buffer.concat(guest.heard).length, PATIENCE).toBe(400 * piece.length);
});

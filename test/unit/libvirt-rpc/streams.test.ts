import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { messageStatus, messageType } from "../../../src/libvirt-rpc/frame.ts";
import {
  connectLibvirt,
  domainOpenConsole,
  domainScreenshot,
  type LibvirtConnection,
  storageVolDownload,
  storageVolUpload,
} from "../../../src/libvirt-rpc/index.ts";
import { FakeDaemon, type FakeDaemonOptions } from "./fake-daemon.ts";

const range = { volume: { pool: "default", name: "disk", key: "/disk" }, offset: 0n, length: 0n, flags: 0 };
const OPENING = new Set([storageVolUpload.number, storageVolDownload.number, domainOpenConsole.number]);

let daemon: FakeDaemon;
let connection: LibvirtConnection;

async function connectTo(options: FakeDaemonOptions): Promise<void> {
  daemon.behave(options);
  connection = await connectLibvirt({
    transport: { kind: "unix", path: daemon.path },
    uri: "test:///default",
  });
}

/** Opens every stream, and confirms the end of each. */
const obliging: FakeDaemonOptions = {
  onMessage: (message, peer) => {
    if (message.type === messageType.call && OPENING.has(message.procedure)) {
      peer.reply(message, storageVolUpload.result, undefined);
      return true;
    }
    if (message.type === messageType.stream && message.status === messageStatus.ok) {
      peer.stream(message, messageStatus.ok);
    }
    return message.type === messageType.stream;
  },
};

beforeEach(async () => {
  daemon = await FakeDaemon.start();
});

afterEach(async () => {
  await connection.close();
  await daemon[Symbol.asyncDispose]();
});

function packets(status: number) {
  return daemon.peer.received.filter(
    (message) => message.type === messageType.stream && message.status === status,
  );
}

/** More than anything between source and daemon may hold; finite, so that a failure is one and no crash. */
const MUCH_BYTES = 268_435_456;

/** Has much to give, and remembers how much of it was taken. */
function plenty(): { source: Readable; taken: () => number } {
  let taken = 0;
  const source = new Readable({
    read() {
      taken += 65_536;
      this.push(taken > MUCH_BYTES ? null : Buffer.alloc(65_536));
    },
  });
  return { source, taken: () => taken };
}

test("an upload arrives as it was, in packets every daemon takes", async () => {
  await connectTo(obliging);
  const data = Buffer.from(Array.from({ length: 700_001 }, (_, i) => i % 251));
  await connection.upload(storageVolUpload, range, Readable.from([data.subarray(0, 5), data.subarray(5)]));
  const sent = packets(messageStatus.continue).map(({ body }) => body);
  expect(Buffer.concat(sent).equals(data)).toBe(true);
  expect(Math.max(...sent.map((body) => body.length))).toBeLessThanOrEqual(262_120);
  expect(packets(messageStatus.ok).length).toBe(1);
});

test("an empty upload is an end without data", async () => {
  await connectTo(obliging);
  await connection.upload(storageVolUpload, range, Readable.from([]));
  expect(packets(messageStatus.continue)).toEqual([]);
  expect(packets(messageStatus.ok).length).toBe(1);
});

test("an upload takes no more from its source than the daemon reads", async () => {
  await connectTo(obliging);
  const { source, taken } = plenty();
  const abort = new AbortController();
  const uploading = connection.upload(storageVolUpload, range, source, { signal: abort.signal });
  const rejected = expect(uploading).rejects.toThrow("enough");
  await vi.waitFor(() => {
    expect(packets(messageStatus.continue).length).toBeGreaterThan(0);
  });
  daemon.peer.socket.pause();
  let before = -1;
  while (taken() !== before) {
    before = taken();
    await sleep(50);
  }
  const arrived = packets(messageStatus.continue).reduce((sum, { body }) => sum + body.length, 0);
  expect(taken() - arrived).toBeLessThan(4_000_000);
  abort.abort(new Error("enough"));
  await rejected;
  expect(source.destroyed).toBe(true);
  daemon.peer.socket.resume();
  await vi.waitFor(() => {
    expect(packets(messageStatus.error).length).toBe(1);
  });
});

test("an upload fails with the daemon's error, and lets go of its source", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.type === messageType.stream && message.status === messageStatus.continue) {
        peer.replyError(message, 38, "No space left on device", messageType.stream);
        return true;
      }
      return obliging.onMessage?.(message, peer) ?? false;
    },
  });
  const { source } = plenty();
  await expect(connection.upload(storageVolUpload, range, source)).rejects.toMatchObject({
    name: "LibvirtError",
    code: 38,
    message: "No space left on device",
    procedure: "storageVolUpload",
  });
  expect(source.destroyed).toBe(true);
});

test("an upload fails with the daemon's error even when that comes with the reply", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== storageVolUpload.number) return false;
      peer.socket.cork();
      if (message.type === messageType.call) {
        peer.reply(message, storageVolUpload.result, undefined);
        peer.replyError(message, 38, "gone", messageType.stream);
      }
      peer.socket.uncork();
      return true;
    },
  });
  await expect(connection.upload(storageVolUpload, range, plenty().source)).rejects.toMatchObject({
    code: 38,
  });
});

test("an upload that is not opened fails with the call's error", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== storageVolUpload.number) return false;
      if (message.type === messageType.call) peer.replyError(message, 50, "no such volume");
      return true;
    },
  });
  const { source } = plenty();
  await expect(connection.upload(storageVolUpload, range, source)).rejects.toMatchObject({ code: 50 });
  expect(source.destroyed).toBe(true);
});

test("an upload whose source breaks is given up on the host, with the source's error", async () => {
  await connectTo(obliging);
  async function* broken() {
    yield Buffer.from("some");
    throw new Error("the client hung up");
  }
  await expect(connection.upload(storageVolUpload, range, broken())).rejects.toThrow("the client hung up");
  await vi.waitFor(() => {
    expect(packets(messageStatus.error).length).toBe(1);
  });
});

test("an upload sends nothing more once beforeSend throws, and its connection ends", async () => {
  await connectTo(obliging);
  const fenced = new Error("the lease is over");
  let allowed = 3;
  const beforeSend = (): void => {
    allowed -= 1;
    if (allowed < 0) throw fenced;
  };
  const uploading = connection.upload(storageVolUpload, range, plenty().source, { beforeSend });
  await expect(uploading).rejects.toBe(fenced);
  expect(connection.closed).toBe(true);
  expect(packets(messageStatus.error)).toEqual([]);
});

test("an upload ends when its connection does", async () => {
  await connectTo(obliging);
  const { source } = plenty();
  const uploading = connection.upload(storageVolUpload, range, source);
  const rejected = expect(uploading).rejects.toMatchObject({ name: "ConnectionError" });
  await vi.waitFor(() => {
    expect(packets(messageStatus.continue).length).toBeGreaterThan(0);
  });
  daemon.peer.socket.destroy();
  await rejected;
  expect(source.destroyed).toBe(true);
});

/** Sends `chunks` as soon as the stream is open, then says that this was all. */
function sending(chunks: readonly Buffer[], number: number = storageVolDownload.number): FakeDaemonOptions {
  return {
    onMessage: (message, peer) => {
      if (message.procedure !== number) return false;
      if (message.type === messageType.stream) {
        if (message.status === messageStatus.ok) peer.stream(message, messageStatus.ok);
        return true;
      }
      peer.reply(message, domainScreenshot.result, { mime: "image/png" });
      for (const chunk of chunks) peer.stream(message, messageStatus.continue, chunk);
      peer.stream(message, messageStatus.continue);
      return true;
    },
  };
}

test("a download arrives as it was sent, with the call's reply", async () => {
  const chunks = Array.from({ length: 20 }, (_, i) => Buffer.alloc(100_000, i));
  await connectTo(sending(chunks, domainScreenshot.number));
  const domain = { name: "web", uuid: "00112233-4455-6677-8899-aabbccddeeff", id: 1 };
  const download = connection.download(domainScreenshot, { domain, screen: 0, flags: 0 });
  expect((await buffer(download)).equals(Buffer.concat(chunks))).toBe(true);
  expect(await download.reply).toEqual({ mime: "image/png" });
});

test("a slow consumer makes the daemon wait", async () => {
  const chunk = Buffer.alloc(250_000);
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== storageVolDownload.number || message.type !== messageType.call) return false;
      peer.reply(message, storageVolDownload.result, undefined);
      let sent = 0;
      const more = (): void => {
        do {
          sent += chunk.length;
          peer.stream(message, messageStatus.continue, chunk);
        } while (!peer.socket.writableNeedDrain && sent < MUCH_BYTES);
      };
      peer.socket.on("drain", more);
      more();
      return true;
    },
  });
  const download = connection.download(storageVolDownload, range);
  await vi.waitFor(() => {
    expect(download.readableLength).toBeGreaterThan(0);
  });
  await sleep(200);
  expect(download.readableLength).toBeLessThan(4_000_000);
  download.destroy();
  await vi.waitFor(() => {
    expect(packets(messageStatus.error).length).toBe(1);
  });
});

test("a download that the daemon breaks off fails with its error", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== storageVolDownload.number || message.type !== messageType.call) return false;
      peer.reply(message, storageVolDownload.result, undefined);
      peer.stream(message, messageStatus.continue, Buffer.from("half"));
      peer.replyError(message, 38, "cannot read", messageType.stream);
      return true;
    },
  });
  await expect(buffer(connection.download(storageVolDownload, range))).rejects.toMatchObject({ code: 38 });
});

test("a download that cannot be opened fails with the call's error", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== storageVolDownload.number) return false;
      if (message.type === messageType.call) peer.replyError(message, 50, "no such volume");
      return true;
    },
  });
  await expect(buffer(connection.download(storageVolDownload, range))).rejects.toMatchObject({ code: 50 });
});

test("a download ends with the reason of its signal", async () => {
  await connectTo({ onMessage: (message) => message.procedure === storageVolDownload.number });
  const abort = new AbortController();
  const reason = new Error("nobody reads on");
  const reading = buffer(connection.download(storageVolDownload, range, { signal: abort.signal }));
  const rejected = expect(reading).rejects.toBe(reason);
  abort.abort(reason);
  await rejected;
});

const guest = {
  domain: { name: "guest", uuid: "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77", id: 1 },
  devName: null,
  flags: 0,
};

/** Opens the stream, and gives back what it is sent. */
const echoing: FakeDaemonOptions = {
  onMessage: (message, peer) => {
    if (message.type === messageType.stream && message.status === messageStatus.continue) {
      peer.stream(message, messageStatus.continue, message.body);
    }
    return obliging.onMessage?.(message, peer) ?? false;
  },
};

test("a stream that goes both ways carries both, and ends when we end it", async () => {
  await connectTo(echoing);
  const stream = await connection.duplex(domainOpenConsole, guest);
  const data = Buffer.from(Array.from({ length: 600_001 }, (_, i) => i % 251));
  const chunks: Buffer[] = [];
  const ended = new Promise((resolve) => stream.once("close", resolve));
  stream.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    if (Buffer.concat(chunks).length === data.length) stream.end();
  });
  stream.write(data);
  await ended;
  expect(Buffer.concat(chunks).equals(data)).toBe(true);
  expect(packets(messageStatus.ok).length).toBe(1);
  expect(packets(messageStatus.error)).toEqual([]);
  expect(connection.closed).toBe(false);
});

test("a stream that goes both ways ends when the daemon has nothing more to say", async () => {
  await connectTo(obliging);
  const stream = await connection.duplex(domainOpenConsole, guest);
  const text = buffer(stream);
  const [call] = daemon.peer.calls;
  if (call === undefined) throw new Error("nothing was called");
  daemon.peer.stream(call, messageStatus.continue, Buffer.from("login: "));
  daemon.peer.stream(call, messageStatus.continue);
  expect((await text).toString()).toBe("login: ");
  await vi.waitFor(() => {
    expect(stream.closed).toBe(true);
  });
});

test("a stream that goes both ways fails with the daemon's error", async () => {
  await connectTo(obliging);
  const stream = await connection.duplex(domainOpenConsole, guest);
  const [call] = daemon.peer.calls;
  if (call === undefined) throw new Error("nothing was called");
  daemon.peer.replyError(call, 38, "stream had I/O failure", messageType.stream);
  await vi.waitFor(() => {
    expect(stream.errored).toMatchObject({ code: 38, procedure: "domainOpenConsole" });
  });
});

test("a stream that goes both ways is refused when its end comes with the reply", async () => {
  await connectTo({
    onMessage: (message, peer) => {
      if (message.procedure !== domainOpenConsole.number || message.type !== messageType.call) return false;
      peer.socket.cork();
      peer.reply(message, domainOpenConsole.result, undefined);
      peer.replyError(message, 38, "gone", messageType.stream);
      peer.socket.uncork();
      return true;
    },
  });
  await expect(connection.duplex(domainOpenConsole, guest)).rejects.toMatchObject({ message: "gone" });
});

test("a stream that goes both ways tells the daemon when it is dropped, and goes with its connection", async () => {
  await connectTo(obliging);
  const stream = await connection.duplex(domainOpenConsole, guest);
  stream.destroy();
  await vi.waitFor(() => {
    expect(packets(messageStatus.error).length).toBe(1);
  });
  const other = await connection.duplex(domainOpenConsole, guest);
  await connection.close();
  await vi.waitFor(() => {
    expect(other.errored).toMatchObject({ name: "ConnectionError" });
  });
});

test("a stream that goes both ways takes no more than its reader, and no more than the daemon reads", async () => {
  await connectTo(obliging);
  const stream = await connection.duplex(domainOpenConsole, guest);
  const [call] = daemon.peer.calls;
  if (call === undefined) throw new Error("nothing was called");
  const megabyte = Buffer.alloc(1_000_000);
  for (let sent = 0; sent < 64; sent++) daemon.peer.stream(call, messageStatus.continue, megabyte);
  let before = -1;
  while (stream.readableLength !== before) {
    before = stream.readableLength;
    await sleep(50);
  }
  expect(stream.readableLength).toBeLessThan(8_000_000);
  daemon.peer.socket.pause();
  let written = 0;
  while (stream.write(megabyte) && written < MUCH_BYTES) written += megabyte.length;
  await sleep(50);
  expect(stream.writableNeedDrain).toBe(true);
  stream.destroy();
});

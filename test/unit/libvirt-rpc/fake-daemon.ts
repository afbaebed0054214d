import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Duplex } from "node:stream";
import type { Codec } from "../../../src/libvirt-rpc/codec.ts";
import {
  decodeFrame,
  encodeFrame,
  FrameSplitter,
  type Message,
  messageStatus,
  messageType,
} from "../../../src/libvirt-rpc/frame.ts";
import { KEEPALIVE_PROGRAM, REMOTE_PROGRAM } from "../../../src/libvirt-rpc/procedure.ts";
import { remoteError } from "../../../src/libvirt-rpc/structures.ts";

const AUTH_LIST = 66;
const CONNECT_OPEN = 1;

/** One client of the fake daemon, as the daemon sees it. */
export class Peer {
  readonly socket: Duplex;
  readonly received: Message[] = [];

  constructor(socket: Duplex) {
    this.socket = socket;
    socket.on("error", () => undefined);
  }

  /** The calls that came, without the two that every connection begins with. */
  get calls(): Message[] {
    return this.received.filter(
      ({ program, type, procedure }) =>
        program === REMOTE_PROGRAM &&
        type === messageType.call &&
        procedure !== AUTH_LIST &&
        procedure !== CONNECT_OPEN,
    );
  }

  reply<T>(call: Message, codec: Codec<T>, value: T): void {
    this.#send({ ...call, type: messageType.reply }, (w) => {
      codec.write(w, value);
    });
  }

  replyError(call: Message, code: number, message: string, type: number = messageType.reply): void {
    const rest = { dom: null, str1: "one", str2: null, str3: null, int1: 5, int2: 6, net: null };
    this.#send({ ...call, type, status: messageStatus.error }, (w) => {
      remoteError.write(w, { code, domain: 7, message, level: 2, ...rest });
    });
  }

  event<T>(number: number, codec: Codec<T>, value: T): void {
    const header = {
      program: REMOTE_PROGRAM,
      procedure: number,
      type: messageType.event,
      serial: 0,
      status: 0,
    };
    this.#send(header, (w) => {
      codec.write(w, value);
    });
  }

  stream(call: Message, status: number, body: Uint8Array = new Uint8Array(0)): void {
    this.#send({ ...call, type: messageType.stream, status }, (w) => {
      w.raw(body);
    });
  }

  ping(): void {
    this.#send({ program: KEEPALIVE_PROGRAM, procedure: 1, type: messageType.event, serial: 0, status: 0 });
  }

  #send(header: Parameters<typeof encodeFrame>[0], body?: Parameters<typeof encodeFrame>[1]): void {
    this.socket.write(encodeFrame(header, body));
  }
}

export interface FakeDaemonOptions {
  /** Answers a message; true when it has. What it leaves is answered so that a connection comes about. */
  readonly onMessage?: (message: Message, peer: Peer) => boolean;
  readonly authTypes?: readonly number[];
}

function answerBasics(message: Message, peer: Peer, authTypes: readonly number[]): void {
  if (message.type !== messageType.call) return;
  const header = { ...message, type: messageType.reply };
  if (message.procedure === AUTH_LIST) {
    peer.socket.write(
      encodeFrame(header, (w) => {
        w.uint(authTypes.length);
        for (const type of authTypes) w.int(type);
      }),
    );
  } else if (message.procedure === CONNECT_OPEN) {
    peer.socket.write(encodeFrame(header));
  }
}

/** Plays the daemon's part on one socket. */
export function serve(socket: Duplex, options: FakeDaemonOptions = {}): Peer {
  const peer = new Peer(socket);
  const splitter = new FrameSplitter();
  socket.on("data", (chunk: Buffer) => {
    for (const frame of splitter.push(chunk)) {
      const message = decodeFrame(frame);
      peer.received.push(message);
      if (options.onMessage?.(message, peer) !== true) answerBasics(message, peer, options.authTypes ?? []);
    }
  });
  return peer;
}

/** A daemon in this process, on a unix socket. */
export class FakeDaemon {
  readonly peers: Peer[] = [];
  readonly path: string;
  readonly #directory: string;
  readonly #server: net.Server;
  #options: FakeDaemonOptions;

  private constructor(options: FakeDaemonOptions) {
    this.#options = options;
    this.#directory = mkdtempSync(path.join(tmpdir(), "fake-libvirt-"));
    this.path = path.join(this.#directory, "socket");
    this.#server = net.createServer((socket) => this.peers.push(serve(socket, this.#options)));
  }

  static async start(options: FakeDaemonOptions = {}): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(options);
    await new Promise<void>((resolve) => daemon.#server.listen(daemon.path, resolve));
    return daemon;
  }

  get peer(): Peer {
    const last = this.peers.at(-1);
    if (last === undefined) throw new Error("nobody has connected");
    return last;
  }

  /** What clients that connect from now on find. */
  behave(options: FakeDaemonOptions): void {
    this.#options = options;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const peer of this.peers) peer.socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { whenClosed } from "../lib/when-closed.ts";
import { type ConsoleEnd, IDLE, REVOKED, TOO_LONG } from "./console-close.ts";

export interface SessionLimits {
  /** Longest silence of both sides. */
  readonly idleMs: number;
  readonly lifetimeMs: number;
  /** Between two looks whether the client lives and may go on. */
  readonly checkMs: number;
  /** Bytes that wait for a slow client before the host is not read any more. */
  readonly maxWaitingBytes: number;
}

export interface Session {
  readonly socket: WebSocket;
  readonly stream: Duplex;
  readonly limits: SessionLimits;
  /** False once the token that opened it is no longer good; null while nobody can tell. */
  readonly mayGoOn: () => Promise<boolean | null>;
  /** Says why the host's side has ended. */
  readonly explainEnd: () => Promise<ConsoleEnd>;
}

/** Joins a client and a console until either ends or a limit is reached; resolves with the end that was told. */
export function runSession(session: Session): Promise<ConsoleEnd> {
  const { socket, stream, limits } = session;
  if (socket.readyState === socket.CLOSED) {
    stream.on("error", () => undefined).destroy();
    return Promise.resolve({ code: 1006, reason: "the client left before the console was open" });
  }
  const { promise, resolve } = Promise.withResolvers<ConsoleEnd>();
  let over = false;
  const end = (how: ConsoleEnd): void => {
    if (over) return;
    over = true;
    for (const timer of [idle, lifetime, checks]) clearTimeout(timer);
    stream.destroy();
    if (socket.readyState === socket.OPEN) socket.close(how.code, how.reason);
    resolve(how);
  };
  const idle = setTimeout(() => {
    end(IDLE);
  }, limits.idleMs);
  const lifetime = setTimeout(() => {
    end(TOO_LONG);
  }, limits.lifetimeMs);
  const checks = watchClient(session, end);
  const alive = (): void => {
    idle.refresh();
  };
  carryToHost(socket, stream, alive);
  carryToClient(session, alive);
  stream.on("error", () => undefined);
  whenClosed(stream, () => {
    if (!over)
      session.explainEnd().then(end, () => {
        end({ code: 1011, reason: "The console ended." });
      });
  });
  socket.once("close", (code: number) => {
    end({ code, reason: "the client left" });
  });
  return promise;
}

/** What the client sends is taken off its socket as fast as the guest reads. */
function carryToHost(socket: WebSocket, stream: Duplex, alive: () => void): void {
  socket.on("message", (data: RawData) => {
    alive();
    if (stream.writable && !stream.write(bytesOf(data))) socket.pause();
  });
  stream.on("drain", () => {
    socket.resume();
  });
  // A paused socket would not hear that its client has left.
  stream.once("close", () => {
    socket.resume();
  });
}

/** What the guest says is read as fast as the client takes it. */
function carryToClient({ socket, stream, limits }: Session, alive: () => void): void {
  stream.on("data", (chunk: Buffer) => {
    alive();
    socket.send(chunk, () => {
      if (socket.bufferedAmount <= limits.maxWaitingBytes / 2) stream.resume();
    });
    if (socket.bufferedAmount > limits.maxWaitingBytes) stream.pause();
  });
}

/** Cuts off a client that does not answer, and ends the session of one that may not go on. */
function watchClient({ socket, limits, mayGoOn }: Session, end: (how: ConsoleEnd) => void): NodeJS.Timeout {
  let answered = true;
  socket.on("pong", () => (answered = true));
  return setInterval(() => {
    if (!answered) socket.terminate();
    answered = false;
    if (socket.readyState === socket.OPEN) socket.ping();
    mayGoOn().then(
      (may) => {
        if (may === false) end(REVOKED);
      },
      () => {
        end({ code: 1011, reason: "The service could not tell whether the console may stay open." });
      },
    );
  }, limits.checkMs);
}

function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? Buffer.from(data) : data;
}

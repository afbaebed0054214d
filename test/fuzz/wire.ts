import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { FuzzRequest } from "./request.ts";

/** HTTP over a plain socket: clients refuse to send what the fuzz must send. One connection for each request. */

export interface WireAnswer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
}

export type Outcome =
  | { readonly kind: "answered"; readonly answers: readonly WireAnswer[] }
  /** The connection ended without an answer. */
  | { readonly kind: "closed" }
  /** No end within the time: the connection hung. */
  | { readonly kind: "hung" }
  | { readonly kind: "unreadable"; readonly text: string };

export interface Target {
  readonly port: number;
  readonly token: string;
}

const TIME_LIMIT_MS = 20_000;
/** Streams of events do not end by themselves. */
const STREAM_MS = 100;
const PIECE_PAUSE_MS = 4;
const PIECES = 5;

/** Sends a request and reads until the connection ends. */
export async function exchange(target: Target, request: FuzzRequest): Promise<Outcome> {
  const socket = connect(target.port, "127.0.0.1");
  const received = receive(socket);
  try {
    await deliver(socket, request, bytesOf(target, request));
    const hung = await received;
    if (hung === null) return { kind: "hung" };
    return readAnswers(hung, request.method === "HEAD");
  } finally {
    socket.destroy();
  }
}

/** All that comes until the end; null when there is none in time. */
function receive(socket: Socket): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<Buffer | null>();
  const limit = setTimeout(() => {
    resolve(null);
  }, TIME_LIMIT_MS);
  const finish = (): void => {
    resolve(Buffer.concat(chunks));
  };
  let streams = false;
  socket.on("data", (chunk) => {
    chunks.push(chunk);
    if (streams || !chunk.includes("text/event-stream")) return;
    streams = true;
    setTimeout(finish, STREAM_MS);
  });
  // A reset loses no more than what had not come yet.
  socket.on("error", finish).on("close", finish);
  return promise.finally(() => {
    clearTimeout(limit);
  });
}

interface Bytes {
  readonly head: Buffer;
  readonly body: Buffer;
}

function bytesOf({ port, token }: Target, request: FuzzRequest): Bytes {
  const { method, target, version, headers, delivery } = request;
  const has = (name: string): boolean => headers.some(([other]) => other.toLowerCase() === name);
  const lines = [`${method} ${target === "" ? "/" : target} ${version}`];
  if (!has("host")) lines.push(`Host: 127.0.0.1:${port}`);
  if (!has("authorization")) lines.push(`Authorization: Bearer ${token}`);
  for (const [name, value] of headers) lines.push(`${name}: ${value}`);
  const body = delivery === "chunked" ? chunked(request.body) : (request.body ?? Buffer.alloc(0));
  const framing = has("transfer-encoding") ? null : framingOf(request, body.length);
  if (framing !== null) lines.push(framing);
  lines.push("Connection: close", "", "");
  return { head: Buffer.from(lines.join("\r\n"), "latin1"), body };
}

function framingOf({ body, delivery }: FuzzRequest, length: number): string | null {
  if (delivery === "chunked") return "Transfer-Encoding: chunked";
  if (body === null) return null;
  if (delivery === "tooLong") return `Content-Length: ${length + 10}`;
  if (delivery === "tooShort") return `Content-Length: ${Math.max(0, length - 3)}`;
  if (delivery === "noNumber") return `Content-Length: ${["-1", "x", "1, 2", "1e3", ""][length % 5] ?? "x"}`;
  return `Content-Length: ${length}`;
}

function chunked(body: Buffer | null): Buffer {
  const end = Buffer.from("0\r\n\r\n");
  if (body === null || body.length === 0) return end;
  return Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n"), end]);
}

async function deliver(socket: Socket, { delivery }: FuzzRequest, { head, body }: Bytes): Promise<void> {
  const whole = Buffer.concat([head, body]);
  // Without a body, half of the head: whatever was cut must not have any effect.
  const half =
    body.length > 1
      ? whole.subarray(0, head.length + Math.floor(body.length / 2))
      : head.subarray(0, Math.floor(head.length / 2));
  switch (delivery) {
    case "slow":
      for (let piece = 0; piece < PIECES && socket.writable; piece++) {
        const [from, to] = [piece, piece + 1].map((at) => Math.floor((whole.length * at) / PIECES));
        socket.write(whole.subarray(from, to));
        await sleep(PIECE_PAUSE_MS);
      }
      return;
    case "truncated":
      socket.end(half);
      return;
    case "tooLong":
      socket.end(whole);
      return;
    case "abandoned":
      socket.write(half);
      await sleep(PIECE_PAUSE_MS);
      socket.destroy();
      return;
    case "whole":
    case "chunked":
    case "tooShort":
    case "noNumber":
      socket.write(whole);
  }
}

const STATUS_LINE = /^HTTP\/1\.[01] (\d{3}) ?/;

/** Takes what came apart into its answers; those that only announce others (1xx) are left out. */
function readAnswers(bytes: Buffer, isHead: boolean): Outcome {
  const answers: WireAnswer[] = [];
  let rest = bytes;
  while (rest.length > 0) {
    const headEnd = rest.indexOf("\r\n\r\n");
    const [first = "", ...lines] = rest.subarray(0, Math.max(0, headEnd)).toString("latin1").split("\r\n");
    const status = Number(STATUS_LINE.exec(first)?.[1] ?? Number.NaN);
    if (headEnd < 0 || Number.isNaN(status)) return { kind: "unreadable", text: rest.toString("latin1") };
    const headers = new Map(lines.map((line) => headerOf(line)));
    const { body, used } = bodyOf(rest.subarray(headEnd + 4), status, headers, isHead);
    if (status >= 200) answers.push({ status, headers, body });
    rest = rest.subarray(headEnd + 4 + used);
  }
  return answers.length === 0 ? { kind: "closed" } : { kind: "answered", answers };
}

function headerOf(line: string): readonly [string, string] {
  const colon = line.indexOf(":");
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
}

function bodyOf(
  bytes: Buffer,
  status: number,
  headers: ReadonlyMap<string, string>,
  isHead: boolean,
): { body: Buffer; used: number } {
  if (isHead || status < 200 || status === 204 || status === 304) return { body: Buffer.alloc(0), used: 0 };
  if (headers.get("transfer-encoding") === "chunked") return unchunked(bytes);
  const used = Math.min(bytes.length, Number(headers.get("content-length") ?? bytes.length));
  return { body: bytes.subarray(0, used), used };
}

function unchunked(bytes: Buffer): { body: Buffer; used: number } {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return { body: Buffer.concat(parts), used: bytes.length };
    const size = Number.parseInt(bytes.subarray(at, lineEnd).toString("latin1"), 16);
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
    if (size === 0) return { body: Buffer.concat(parts), used: Math.min(at, bytes.length) };
  }
}

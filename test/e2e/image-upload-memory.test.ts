import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { expect, it, onTestFinished } from "vitest";
import { temporaryDirectory } from "../fixtures/temporary-directory.ts";

const SIZE_BYTES = 4 * 2 ** 30;
const BLOCK_BYTES = 2 ** 20;
const LIMIT_BYTES = 300 * 2 ** 20;
const TOKEN = "a-token-of-this-test-only";

/** Starts `drover serve` as its users do, with a directory of its own, and waits until it listens. */
async function startService(): Promise<{ readonly url: string; readonly process: ChildProcess }> {
  const dataDir = path.join(await temporaryDirectory(), "data");
  const service = spawn(process.execPath, ["src/main.ts"], {
    env: {
      PATH: process.env["PATH"],
      DROVER_DATA_DIR: dataDir,
      DROVER_LISTEN: "127.0.0.1:0",
      DROVER_ADMIN_TOKEN: TOKEN,
      DROVER_LOG_LEVEL: "warn",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise<void>((resolve) =>
    service.once("exit", () => {
      resolve();
    }),
  );
  onTestFinished(async () => {
    service.kill("SIGTERM");
    await exited;
  });
  for await (const line of createInterface({ input: service.stdout })) {
    const url = /listens on (http:\S+)/.exec(line)?.[1];
    if (url !== undefined) return { url, process: service };
  }
  throw new Error("the service ended before it listened");
}

/** The most memory that the process ever held, in bytes. */
async function peakMemoryBytes({ pid }: ChildProcess): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, "utf8");
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kib === undefined) throw new Error(`no VmHWM in ${status}`);
  return Number(kib) * 1024;
}

/** A disk of which no block is like another, made while it is sent. */
function generatedDisk(): { readonly stream: Readable; readonly sha256: () => string } {
  const hash = createHash("sha256");
  const noise = randomBytes(BLOCK_BYTES);
  function* blocks(): Generator<Buffer> {
    for (let index = 0; index < SIZE_BYTES / BLOCK_BYTES; index++) {
      const block = Buffer.from(noise);
      block.fill(0, 0, 1024);
      block.writeUInt32LE(index, 512);
      hash.update(block);
      yield block;
    }
  }
  return {
    stream: Readable.from(blocks(), { objectMode: true, highWaterMark: 1 }),
    sha256: () => hash.digest("hex"),
  };
}

/** Sends a body with backpressure and reads the answer. */
async function put(
  url: string,
  body: Readable,
): Promise<{ readonly status: number; readonly body: unknown }> {
  const request = http.request(url, {
    method: "PUT",
    headers: { authorization: `Bearer ${TOKEN}`, "content-length": SIZE_BYTES },
  });
  const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once("response", resolve).once("error", reject);
  });
  await pipeline(body, request);
  const response = await answered;
  const text = (await response.toArray()).join("");
  return { status: response.statusCode ?? 0, body: JSON.parse(text) };
}

it.runIf(process.platform === "linux")(
  "takes an upload of 4 GiB with less than 300 MiB of memory",
  { timeout: 600_000 },
  async () => {
    const service = await startService();
    const disk = generatedDisk();
    const answer = await put(`${service.url}/v1/images/large/content?kind=disk`, disk.stream);
    expect(answer).toMatchObject({
      status: 201,
      body: { state: "ready", sizeBytes: SIZE_BYTES, sha256: disk.sha256() },
    });
    const peak = await peakMemoryBytes(service.process);
    expect(peak).toBeLessThan(LIMIT_BYTES);
    const deleted = await fetch(`${service.url}/v1/images/large`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    expect(deleted.status).toBe(204);
  },
);

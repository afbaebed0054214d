import type { Readable, Writable } from "node:stream";
import { HypervisorError } from "../hypervisor.ts";
import type { CallLimit } from "./call-limit.ts";
import type { Started } from "./runner.ts";

/** More than this no program of ours writes; it is here for a host that is out of its mind. */
const MAX_OUTPUT_BYTES = 32 << 20;

export interface ProgramOutput {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/**
 * Waits for the end of a program. Rejects with what ends the limit, or with what its input threw; then the program may
 * run on.
 */
export async function runProgram(
  started: Started,
  input: AsyncIterable<Uint8Array> | string | undefined,
  limit: CallLimit,
): Promise<ProgramOutput> {
  const { child } = started;
  const ended = Promise.withResolvers<ProgramOutput>();
  const stdout = gather(child.stdout, ended.reject);
  const stderr = gather(child.stderr, ended.reject);
  child.once("error", (cause) => {
    ended.reject(new HypervisorError("failed", `'${child.spawnfile}' did not start here`, { cause }));
  });
  child.once("close", (code, signal) => {
    if (code === null) {
      const message = `'${child.spawnfile}' was ended here by ${signal ?? "a signal"}`;
      ended.reject(new HypervisorError("failed", message));
    } else ended.resolve({ exitCode: code, stdout: stdout(), stderr: stderr().toString("utf8") });
  });
  const over = ended.promise.then(
    () => null,
    () => null,
  );
  const stop = (): void => {
    ended.reject(limit.signal.reason as Error);
  };
  if (limit.signal.aborted) stop();
  else limit.signal.addEventListener("abort", stop, { once: true });
  try {
    const [output] = await Promise.all([ended.promise, feed(child.stdin, input, limit, over)]);
    return output;
  } catch (error) {
    started.giveUp();
    throw error;
  } finally {
    limit.signal.removeEventListener("abort", stop);
  }
}

/** Collects what comes; the function gives it. */
function gather(stream: Readable | null, fail: (error: Error) => void): () => Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  stream?.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_OUTPUT_BYTES) fail(new HypervisorError("failed", "a program on the host wrote too much"));
    else chunks.push(chunk);
  });
  stream?.on("error", fail);
  return () => Buffer.concat(chunks);
}

/**
 * Writes the input to the program. The limit counts while the host is waited for, not while the source is. Rejects with
 * what the source threw, when the program has come to its end over it.
 */
async function feed(
  stdin: Writable | null,
  input: AsyncIterable<Uint8Array> | string | undefined,
  limit: CallLimit,
  over: Promise<null>,
): Promise<void> {
  if (stdin === null || input === undefined) return;
  // A program that ends without having read it all says why by its status.
  stdin.on("error", () => undefined);
  if (typeof input === "string") {
    stdin.end(input);
    return;
  }
  const source = input[Symbol.asyncIterator]();
  try {
    for (;;) {
      limit.pause();
      const next = await Promise.race([source.next(), over]);
      limit.resume();
      if (next === null) {
        leave(source);
        return;
      }
      if (next.done === true) break;
      if (!stdin.write(next.value)) await Promise.race([drained(stdin), over]);
    }
    stdin.end();
  } catch (error) {
    limit.resume();
    stdin.end();
    await over;
    throw error;
  }
}

function drained(stdin: Writable): Promise<void> {
  return new Promise((resolve) => {
    stdin.once("drain", resolve);
  });
}

/** Tells a source that nobody listens any more. One that stalls may never answer, so nobody waits for it. */
function leave(source: AsyncIterator<Uint8Array>): void {
  source.return?.().catch(() => undefined);
}

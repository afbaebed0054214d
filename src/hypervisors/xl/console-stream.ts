import { Duplex, type Readable } from "node:stream";
import { HypervisorError } from "../hypervisor.ts";
import type { CallLimit } from "./call-limit.ts";
import { BEGAN } from "./host-program.ts";
import type { ProgramOutput } from "./run-program.ts";
import type { Started } from "./runner.ts";

const MAX_STDERR_CHARS = 8_192;

/**
 * What a program writes and reads, once it has said that it began. Destroying the stream gives the program up; it ends
 * when the program does. Rejects with what ends the limit, or with what `refusal` makes of a program that ended instead.
 */
export async function consoleStream(
  started: Started,
  limit: CallLimit,
  refusal: (output: ProgramOutput) => HypervisorError,
): Promise<Duplex> {
  const { child } = started;
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null) throw new Error("a console's program has a stdin and a stdout");
  // Its end tells what a broken pipe does.
  stdin.on("error", () => undefined);
  stdout.on("error", () => undefined);
  let words = "";
  stderr?.setEncoding("utf8").on("data", (text: string) => {
    words = (words + text).slice(-MAX_STDERR_CHARS);
  });
  const ended = new Promise<ProgramOutput>((resolve, reject) => {
    child.once("error", (cause) => {
      reject(new HypervisorError("failed", `'${child.spawnfile}' did not start here`, { cause }));
    });
    child.once("close", (code) => {
      resolve({ exitCode: code ?? 1, stdout: Buffer.alloc(0), stderr: words });
    });
  });
  // It is heard of below where it matters.
  ended.catch(() => undefined);
  try {
    const refused = ended.then((output) => {
      throw refusal(output);
    });
    const rest = await Promise.race([began(stdout), refused, abortOf(limit.signal)]);
    if (rest.length > 0) stdout.unshift(rest);
  } catch (error) {
    started.giveUp();
    throw error;
  }
  const stream = new Duplex({
    allowHalfOpen: false,
    read: () => void stdout.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      stdin.write(chunk, () => {
        done();
      });
    },
    final: (done) => {
      stdin.end();
      done();
    },
    destroy: (error, done) => {
      started.giveUp();
      done(error);
    },
  });
  stdout.on("data", (chunk: Buffer) => {
    if (!stream.push(chunk)) stdout.pause();
  });
  stdout.once("end", () => stream.push(null));
  return stream;
}

/** Resolves with what came behind the line that says so. */
function began(stdout: Readable): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    if (head.length < BEGAN.length) return;
    stdout.off("data", onData).pause();
    if (head.toString("latin1", 0, BEGAN.length) === BEGAN) resolve(head.subarray(BEGAN.length));
    else reject(new HypervisorError("failed", "the host answered something else than its console"));
  };
  stdout.on("data", onData);
  return promise;
}

function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const stop = (): void => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

import { spawn } from "node:child_process";
import { buffer } from "node:stream/consumers";
import { type Call, HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import type {
  ChangeOptions,
  ProgramArguments,
  ProgramResult,
  XlHost,
} from "../../../../src/hypervisors/xl/host.ts";

export const call: Call = {
  signal: new AbortController().signal,
  timeoutMs: 60_000,
  beforeSend: () => undefined,
};

/**
 * Runs the programs on this machine, without fence and locks. `around` is put before each, such as what enters a
 * namespace. Keeps the locks that changes were to take.
 */
export class LocalHost implements XlHost {
  readonly locks: string[] = [];
  readonly #around: readonly string[];

  constructor(around: readonly string[] = []) {
    this.#around = around;
  }

  async read(argv: ProgramArguments, { signal }: Call): Promise<ProgramResult> {
    return asText(await this.#run(argv, signal));
  }

  async readBytes(argv: ProgramArguments, { signal }: Call) {
    return await this.#run(argv, signal);
  }

  async change(
    argv: ProgramArguments,
    { signal, beforeSend }: Call,
    options: ChangeOptions,
  ): Promise<ProgramResult> {
    beforeSend();
    this.locks.push(options.lock);
    return asText(await this.#run(argv, signal, options.input));
  }

  async #run(argv: ProgramArguments, signal: AbortSignal, input?: ChangeOptions["input"]) {
    const [program, ...args] = [...this.#around, ...argv];
    if (program === undefined) throw new Error("no program was named");
    const child = spawn(program, args, { stdio: "pipe" });
    const exited = new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => {
        resolve(code ?? -1);
      });
    });
    // Whoever does not read its input closes it: what counts is the exit status.
    child.stdin.on("error", () => undefined);
    const given = feed(child.stdin, typeof input === "string" ? [Buffer.from(input)] : (input ?? []));
    const [stdout, stderr, exitCode, failure] = await Promise.all([
      buffer(child.stdout),
      buffer(child.stderr),
      exited,
      given,
    ]);
    if (signal.aborted) throw new HypervisorError("aborted", "the call was ended", { cause: signal.reason });
    if (failure !== null) throw failure.error;
    return { exitCode, stdout, stderr: stderr.toString("utf8") };
  }
}

/** Gives a program its input to the end, or as far as the source goes. Resolves to what the source threw. */
async function feed(
  stdin: NodeJS.WritableStream,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<{ readonly error: unknown } | null> {
  try {
    for await (const chunk of source) {
      await new Promise((resolve) => stdin.write(chunk, resolve));
    }
    return null;
  } catch (error) {
    return { error };
  } finally {
    stdin.end();
  }
}

function asText({
  exitCode,
  stdout,
  stderr,
}: {
  exitCode: number;
  stdout: Buffer;
  stderr: string;
}): ProgramResult {
  return { exitCode, stdout: stdout.toString("utf8"), stderr };
}

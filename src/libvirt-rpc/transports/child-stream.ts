import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { Duplex } from "node:stream";

/** What is kept of a child's stderr: its beginning says which key was shown, its end why it gave up. */
const STDERR_HEAD_CHARS = 16_384;
const STDERR_TAIL_CHARS = 8_192;
/** How long a child may take to heed SIGTERM. */
const KILL_GRACE_MS = 2_000;

export interface ChildStreamHooks {
  /** Makes the error of a child that ended, from how it did and what it wrote to stderr. */
  explain(how: string, stderr: string): Error;
  /** Called once. */
  onFirstByteOrEnd(): void;
}

/** A child process's stdin and stdout as one stream, which ends when the child does. */
export class ChildStream extends Duplex {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #hooks: ChildStreamHooks;
  readonly #gone = Promise.withResolvers<undefined>();
  #stderrHead = "";
  #stderrTail = "";
  #released = false;

  constructor(child: ChildProcessWithoutNullStreams, hooks: ChildStreamHooks) {
    super({ allowHalfOpen: false });
    this.#child = child;
    this.#hooks = hooks;
    child.stdout.on("data", (chunk: Buffer) => {
      this.#release();
      if (!this.push(chunk)) child.stdout.pause();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#keepStderr(text);
    });
    // A pipe that breaks is followed by the child's end, which says why.
    child.stdin.on("error", () => undefined);
    child.once("error", (error) => {
      this.#ended(error.message);
    });
    child.once("close", (code, signal) => {
      this.#ended(signal ?? `exit code ${code ?? "unknown"}`);
    });
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.#child.stdin.writable || this.#child.stdin.write(chunk)) done();
    else this.#child.stdin.once("drain", done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#child.stdin.end(() => {
      done();
    });
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#child.kill("SIGTERM");
    const killer = setTimeout(() => this.#child.kill("SIGKILL"), KILL_GRACE_MS);
    void this.#gone.promise.then(() => {
      clearTimeout(killer);
      done(error);
    });
  }

  #keepStderr(text: string): void {
    const room = STDERR_HEAD_CHARS - this.#stderrHead.length;
    this.#stderrHead += text.slice(0, room);
    this.#stderrTail = (this.#stderrTail + text.slice(room)).slice(-STDERR_TAIL_CHARS);
  }

  #ended(how: string): void {
    this.#release();
    this.#gone.resolve(undefined);
    this.destroy(this.#hooks.explain(how, this.#stderrHead + this.#stderrTail));
  }

  #release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#hooks.onFirstByteOrEnd();
  }
}

import type { Call } from "../hypervisor.ts";

/** A program and its arguments. */
export type ProgramArguments = readonly [string, ...string[]];

export interface ProgramResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ChangeOptions {
  /** Names what no two changes may touch at once: a domain's UUID, or a volume's path. */
  readonly lock: string;
  /**
   * The program's stdin. Where it is a source that comes slowly, the call's time limit is for the host's answer and not
   * for the source. A source that throws ends the program's stdin and rejects the change with what it threw: a program
   * must know by itself whether it got all.
   */
  readonly input?: AsyncIterable<Uint8Array> | string;
  /** How long the program may run on the host, in seconds; it is killed there when it runs longer. */
  readonly limitSeconds: number;
}

/** Runs programs on the host, here or over ssh. */
export interface XlHost {
  /**
   * Runs a program that changes nothing; its stdout is read as UTF-8. An exit status other than 0 resolves.
   * @throws HypervisorError when the program could not be run, or did not end in time
   */
  read(argv: ProgramArguments, call: Call): Promise<ProgramResult>;
  /**
   * Runs a program that changes the host, under the fence and the lock. An exit status other than 0 resolves.
   * @throws HypervisorError when the program could not be run, or did not end in time; what `call.beforeSend` throws
   */
  change(argv: ProgramArguments, call: Call, options: ChangeOptions): Promise<ProgramResult>;
  /** Runs a program that changes nothing, and gives what it wrote as bytes. */
  readBytes(
    argv: ProgramArguments,
    call: Call,
  ): Promise<{ readonly exitCode: number; readonly stdout: Uint8Array; readonly stderr: string }>;
}

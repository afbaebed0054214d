import { createHash } from "node:crypto";
import type { Duplex } from "node:stream";
import { type Call, HypervisorError } from "../hypervisor.ts";
import { CallLimit } from "./call-limit.ts";
import { consoleStream } from "./console-stream.ts";
import { commandFailed } from "./errors.ts";
import type { ChangeOptions, ProgramArguments, ProgramResult, XlHost } from "./host.ts";
import { BEGAN, HOST_PROGRAM } from "./host-program.ts";
import { DOMAIN_STATUS } from "./host-status.ts";
import { Places } from "./places.ts";
import { type ProgramOutput, runProgram } from "./run-program.ts";
import type { Runner, Started } from "./runner.ts";

/**
 * Sessions of one login at once. sshd allows ten unless told otherwise: these, the login's own and the watch. Reads have
 * places of their own, for a change may take minutes, and so have changes with content from outside, for they take
 * as long as their source.
 */
const MAX_READS = 3;
const MAX_CHANGES = 3;
const MAX_TRANSFERS = 2;

/** A program that only reads is ended on the host after this time, whether anybody still listens or not. */
const READ_LIMIT_SECONDS = 120;
/**
 * The wait on the host for another change of the same thing: a part of the caller's own time, so that he hears what it
 * was that he waited for, and not longer than this.
 */
const WAIT_SHARE = 0.8;
const MAX_WAIT_SECONDS = 600;

export interface HostLinkOptions {
  readonly runner: Runner;
  /** Where all that belongs to this installation is kept on the host. */
  readonly directory: string;
  /** The value of the owner; null for a connection that only reads. */
  readonly fence: string | null;
}

export interface DomainChangeOptions {
  /** For how long each program of the change may run on the host. */
  readonly limitSeconds: number;
  readonly args?: readonly string[];
  readonly input?: string;
}

/** Runs the host program, each call by itself: places, limits, and what the statuses of the program mean. */
export class HostLink implements XlHost {
  readonly #options: HostLinkOptions;
  readonly #reads = new Places(MAX_READS);
  readonly #changes = new Places(MAX_CHANGES);
  readonly #transfers = new Places(MAX_TRANSFERS);

  constructor(options: HostLinkOptions) {
    this.#options = options;
  }

  async read(argv: ProgramArguments, call: Call): Promise<ProgramResult> {
    return asText(await this.#read(argv, call));
  }

  async readBytes(argv: ProgramArguments, call: Call): Promise<ProgramOutput> {
    return await this.#read(argv, call);
  }

  async change(argv: ProgramArguments, call: Call, options: ChangeOptions): Promise<ProgramResult> {
    const { lock, limitSeconds, input } = options;
    const words = [lockName(lock), `a change of ${lock}`, ...argv];
    return await this.#change("change", words, call, limitSeconds, input);
  }

  /** Changes a domain by a verb of the host program; see domain-program.ts. */
  async changeDomain(
    change: string,
    uuid: string,
    call: Call,
    { limitSeconds, args = [], input }: DomainChangeOptions,
  ): Promise<ProgramResult> {
    return await this.#change("domain", [change, uuid, ...args], call, limitSeconds, input);
  }

  /** What the host program tells of `what`, in sections; see domain-reads-program.ts and parse-sections.ts. */
  async tell(
    what: "domains" | "resources" | "host" | "screen",
    args: readonly string[],
    call: Call,
  ): Promise<string> {
    const words = [String(READ_LIMIT_SECONDS), what, ...args];
    const output = await this.#send(this.#reads, call, () => this.#start("tell", words, false));
    if (output.exitCode !== 0) throw commandFailed("looking at the host", output);
    return output.stdout.toString("utf8");
  }

  /**
   * Makes this connection's owner the host's, unless a later one was here, and the directories that are to be there.
   * @throws HypervisorError `busy` when changes of the owner before do not end in time, or the host is a later one's
   */
  async takeHost(call: Call, waitSeconds: number, directories: readonly string[] = []): Promise<void> {
    const { fence } = this.#options;
    if (fence === null) return;
    const output = await this.#send(this.#changes, call, () =>
      this.#start("fence", [String(waitSeconds), fence, ...directories], false),
    );
    if (output.exitCode !== 0) {
      throw new HypervisorError("failed", `the host did not let us in: ${output.stderr.trim()}`);
    }
  }

  /** Starts a watch of Xen's store, which writes a line when a domain comes or goes, until it is given up. */
  startWatch(): Started {
    this.#options.runner.over.throwIfAborted();
    return this.#start("watch", [], true);
  }

  /** A guest's serial console, for as long as the stream is open; see domain-reads-program.ts. */
  async openConsole(uuid: string, force: boolean, call: Call): Promise<Duplex> {
    const { runner } = this.#options;
    const limit = new CallLimit(call, runner.over);
    try {
      const words = [String(READ_LIMIT_SECONDS), uuid, force ? "force" : ""];
      return await consoleStream(this.#start("console", words, true), limit, (output) => {
        if (runner.isLoss(output.exitCode)) return lostOnTheWay(runner, output.stderr);
        return hostRefusal(output) ?? commandFailed(`opening the console of domain ${uuid}`, output);
      });
    } finally {
      limit.end();
    }
  }

  #read(argv: ProgramArguments, call: Call): Promise<ProgramOutput> {
    return this.#send(this.#reads, call, () =>
      this.#start("read", [String(READ_LIMIT_SECONDS), ...argv], false),
    );
  }

  async #change(
    verb: "change" | "domain",
    words: readonly string[],
    call: Call,
    limitSeconds: number,
    input: ChangeOptions["input"],
  ): Promise<ProgramResult> {
    const { fence } = this.#options;
    if (fence === null) throw readOnly();
    const bounds = [waitSeconds(call), String(Math.ceil(limitSeconds)), fence];
    const places = typeof input === "object" ? this.#transfers : this.#changes;
    const start = (): Started => {
      call.beforeSend();
      return this.#start(verb, [...bounds, ...words], input !== undefined);
    };
    const result = asText(await this.#send(places, call, start, input));
    if (!result.stdout.startsWith(BEGAN)) throw notBegun(result);
    return { ...result, stdout: result.stdout.slice(BEGAN.length) };
  }

  #start(verb: string, words: readonly string[], takesInput: boolean): Started {
    const { runner, directory } = this.#options;
    return runner.start(["sh", "-c", HOST_PROGRAM, "drover", verb, directory, ...words], takesInput);
  }

  async #send(
    places: Places,
    call: Call,
    start: () => Started,
    input?: ChangeOptions["input"],
  ): Promise<ProgramOutput> {
    const { runner } = this.#options;
    const limit = new CallLimit(call, runner.over);
    try {
      const output = await places.use(limit.signal, async () => {
        limit.signal.throwIfAborted();
        return await runProgram(start(), input, limit);
      });
      if (runner.isLoss(output.exitCode)) throw lostOnTheWay(runner, output.stderr);
      const refusal = hostRefusal(output);
      if (refusal !== null) throw refusal;
      return output;
    } finally {
      limit.end();
    }
  }
}

function asText({ exitCode, stdout, stderr }: ProgramOutput): ProgramResult {
  return { exitCode, stdout: stdout.toString("utf8"), stderr };
}

function waitSeconds({ timeoutMs }: Call): string {
  return Math.min((timeoutMs * WAIT_SHARE) / 1000, MAX_WAIT_SECONDS).toFixed(2);
}

/** A lock's name becomes a file's. */
function lockName(lock: string): string {
  return /^[a-z0-9-]{1,64}$/.test(lock) ? lock : createHash("sha256").update(lock).digest("hex");
}

const REASON_BY_STATUS = new Map<number, HypervisorError["reason"]>([
  // Whoever lost the host to another hears it of the database too, and stops there.
  [DOMAIN_STATUS.fenced, "busy"],
  [DOMAIN_STATUS.busy, "busy"],
  [DOMAIN_STATUS.absent, "not-found"],
  [DOMAIN_STATUS.foreign, "foreign"],
  [DOMAIN_STATUS.invalidState, "invalid-state"],
  [DOMAIN_STATUS.missing, "invalid-spec"],
  [DOMAIN_STATUS.alreadyExists, "already-exists"],
  [DOMAIN_STATUS.cut, "failed"],
]);

/** What the host program's own statuses say; null: it is the program's that it ran. */
function hostRefusal({ exitCode, stderr }: ProgramOutput): HypervisorError | null {
  const reason = REASON_BY_STATUS.get(exitCode);
  if (reason === undefined) return null;
  const words = /^drover: (.*)$/ms.exec(stderr)?.[1]?.trim() ?? `the host program ended with ${exitCode}`;
  return new HypervisorError(reason, words);
}

function notBegun({ exitCode, stderr }: ProgramResult): HypervisorError {
  const words = stderr.trim() === "" ? `exit status ${exitCode}` : stderr.trim();
  return new HypervisorError(
    "failed",
    `the host cannot run changes: ${words}. It needs sh, flock and timeout, and room below /var/lib.`,
  );
}

function lostOnTheWay(runner: Runner, stderr: string): HypervisorError {
  if (runner.over.aborted) return runner.over.reason as HypervisorError;
  return new HypervisorError("unreachable", `the host was not reached: ${stderr.trim()}`);
}

function readOnly(): HypervisorError {
  return new HypervisorError(
    "unsupported",
    "this connection was opened to look at the host, not to change it",
  );
}

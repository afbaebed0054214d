import { HypervisorError, type HypervisorErrorReason } from "../hypervisor.ts";
import type { ProgramResult } from "./host.ts";

/** A program on the host that ended with another exit status than 0, in its own words. */
export class ProgramError extends Error {
  override readonly name = "ProgramError";
  readonly exitCode: number;
  readonly stderr: string;

  constructor(exitCode: number, stderr: string) {
    super(`exit status ${exitCode}: ${stderr.trim()}`);
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

/** What xl, qemu-img and others write on the way, whether it goes well or not. */
const PROGRESS =
  /^(?:Parsing config from|Loading new save file|Saving to|Shutting down domain|Rebooting domain|Waiting for| Savefile contains|(?:xc|libxl): (?:info|progress|detail|debug|notice|warning):|\d+\+\d+ records (?:in|out)$)/;

/** libxl cleans up after what went wrong, and complains of what is not there; and a script's status is no cause. */
const AFTERMATH =
  /libxl__destroy_domid:|domain_destroy_callback:|domain_destroy_cb:|destroy_domid_pci_done:|libxl__domain_type:|libxl_report_child_exitstatus:/;

/** Where in a program's source the line was written, and for which domain. */
const ORIGIN =
  /^(?:libxl|xc|xencall|xenforeignmemory|xl): error: (?:panic: )?(?:[a-z0-9_]+\.c:\d+:\s?)?(?:[A-Za-z0-9_]+:\s)?(?:Domain \d+:)?/;

interface Meaning {
  readonly pattern: RegExp;
  readonly reason: HypervisorErrorReason;
  /** What to do, where the program's own words do not say it. */
  readonly advice?: string;
}

/** What the cause means to us; the first that fits. The programs have no numbers for their errors, only texts. */
const MEANINGS: readonly Meaning[] = [
  {
    pattern: /privileged command interface|cannot open libxc handle|connect(?:ion)? to xenstore/i,
    reason: "unsupported",
    advice: "See that the host runs under Xen, that its services were started, and that the user is root.",
  },
  {
    pattern: /segment \S+ too large|guest memory.*too small/i,
    reason: "invalid-spec",
    advice: "The guest's memory is too small for its kernel and initrd: give it more.",
  },
  { pattern: /already exists/i, reason: "already-exists" },
  { pattern: /No space left on device|Disk quota exceeded|insufficient free space/i, reason: "storage-full" },
  {
    pattern:
      /Out of memory|Cannot allocate memory|can't allocate|free memory for the domain|not enough memory/i,
    reason: "no-capacity",
  },
  {
    pattern:
      /Failed to read config file.*No such file|invalid domain identifier|Can't get domid|Non-existant domain/i,
    reason: "not-found",
  },
  {
    pattern: /^(?:qemu-img|stat|rm|mv|cp|dd|truncate|tail|cat|sh):.*No such file or directory/i,
    reason: "not-found",
  },
  {
    pattern: /Could not find bridge device/i,
    reason: "invalid-spec",
    advice: "Make the bridge on the host, or choose another network.",
  },
  { pattern: /No such file or directory|bootloader failed/i, reason: "invalid-spec" },
  { pattern: /config parsing error|Failed to parse config|must be specified/i, reason: "invalid-spec" },
  {
    pattern: /Send trigger 'reset' failed/i,
    reason: "invalid-state",
    advice:
      "The guest has no drivers for Xen that are up, so nothing can ask it to restart: a reset restarts it.",
  },
  {
    pattern: /didn't acknowledge control request|PV control interface not available/i,
    reason: "failed",
    advice: "The guest hangs, or has no drivers for Xen: a forced stop ends it.",
  },
  { pattern: /did not respond to suspend request|Failed to enable logdirty/i, reason: "invalid-state" },
  { pattern: /Not destroying domain 0/i, reason: "unsupported" },
  {
    pattern:
      /Device or resource busy|Logical volume \S+ in use|contains a filesystem in use|Resource temporarily unavailable|Failed to get .* lock/i,
    reason: "busy",
  },
  { pattern: /Permission denied|Operation not permitted|Read-only file system/i, reason: "authentication" },
  {
    pattern: /must be less than or equal|maxcpus is|File too large|Invalid argument/i,
    reason: "invalid-spec",
  },
];

/** Of `timeout`: the program ran too long and was ended, or did not even end at that. */
const TIMED_OUT: ReadonlySet<number> = new Set([124, 137]);
/** Of a shell: the program could not be run, or is not there. */
const NOT_RUN: ReadonlySet<number> = new Set([126, 127]);

/**
 * What a program on the host that failed means to us; its own words stay in the message, all of them in the cause.
 * @param action what was tried, as the beginning of a sentence, such as `starting the domain`
 */
export function commandFailed(action: string, result: Omit<ProgramResult, "stdout">): HypervisorError {
  const { exitCode, stderr } = result;
  const cause = new ProgramError(exitCode, stderr);
  const fail = (reason: HypervisorErrorReason, why: string): HypervisorError =>
    new HypervisorError(reason, `${action} failed: ${why}`, {
      cause,
      details: { exitCode: String(exitCode) },
    });
  if (TIMED_OUT.has(exitCode)) return fail("timeout", "it took too long on the host and was ended there");
  const words = causeOf(stderr);
  if (words === null) return fail("failed", `exit status ${exitCode}, without a word`);
  if (NOT_RUN.has(exitCode)) return fail("unsupported", `${words}. Install what is missing on the host.`);
  const meaning = MEANINGS.find(({ pattern }) => pattern.test(words));
  const advice = meaning?.advice === undefined ? "" : ` ${meaning.advice}`;
  return fail(meaning?.reason ?? "failed", advice === "" ? words : `${words.replace(/\.$/, "")}.${advice}`);
}

/** The line that says what went wrong: the first error that is not the clearing up after another. */
export function causeOf(stderr: string): string | null {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "" && !PROGRESS.test(line));
  const causes = lines.filter((line) => !AFTERMATH.test(line));
  const line = causes.find((text) => text.includes("error:")) ?? causes[0] ?? lines[0];
  if (line === undefined) return null;
  const words = line
    .replace(ORIGIN, "")
    .replace(/: Internal error$/, "")
    .trim();
  return words === "" ? line.trim() : words;
}

/** What a parser throws when a program's output lacks what it always has. */
export function unreadable(program: string, why: string, cause?: unknown): HypervisorError {
  return new HypervisorError("failed", `the output of '${program}' on the host cannot be read: ${why}`, {
    cause,
    retryable: false,
  });
}

/** True for an error that says that a thing is not there. */
export function isNotFound(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "not-found";
}

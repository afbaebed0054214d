import { execa } from "execa";

/**
 * Runs the programs of a build: as argument vectors, with an environment of their own, at a low priority, in a process
 * and mount namespace of their own. Whatever ends this process, by SIGKILL too, ends all of theirs: the kernel kills
 * `unshare` with its parent, the namespace's first process with `unshare`, and all others with that one. What they had
 * mounted goes with them.
 */

export interface Confined {
  /** As in PATH: where the program and those that confine it are looked for. */
  readonly tools: { readonly path: string };
  readonly program: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** For its standard input. */
  readonly input?: string;
  /** Called with each line of both outputs. */
  readonly onLine?: (line: string) => void;
}

export interface Ended {
  /** undefined: a signal ended it, or it never began. */
  readonly exitCode: number | undefined;
  /** The last lines of both outputs. */
  readonly tail: readonly string[];
}

const TAIL_LINES = 60;
const PRIORITY = "15";
const CONFINE = ["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
/** Makes a user the root of a system's files: user ids are mapped to those that /etc/subuid grants. */
const AS_ROOT_OF_OWN = ["--map-root-user", "--map-auto"];

/** Resolves when the program and all it started have ended. @throws what the signal was aborted with. */
export async function runConfined(options: Confined): Promise<Ended> {
  const { tools, program, args, cwd, env, signal, input, onLine } = options;
  signal.throwIfAborted();
  const child = execa("setpriv", [...confinement(), program, ...args], {
    cwd,
    env: { PATH: tools.path, LC_ALL: "C.UTF-8", DEBIAN_FRONTEND: "noninteractive", ...env },
    // Nothing of our environment is its business, credentials least of all.
    extendEnv: false,
    ...(input === undefined ? { stdin: "ignore" as const } : { input }),
    detached: true,
    all: true,
    buffer: false,
    reject: false,
  });
  const kill = (): void => {
    killGroup(child.pid);
  };
  signal.addEventListener("abort", kill, { once: true });
  const tail: string[] = [];
  try {
    for await (const line of child.iterable({ from: "all" })) {
      onLine?.(line);
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
    }
    const { exitCode, originalMessage } = await child;
    signal.throwIfAborted();
    if (exitCode === undefined && originalMessage !== undefined) tail.push(originalMessage);
    return { exitCode, tail };
  } finally {
    signal.removeEventListener("abort", kill);
  }
}

function confinement(): string[] {
  const own = process.getuid?.() === 0 ? [] : AS_ROOT_OF_OWN;
  const priority = ["nice", "-n", PRIORITY];
  return ["--pdeathsig", "KILL", ...priority, "unshare", ...own, ...CONFINE];
}

/** The group is the child's own: it was started detached, and is not reaped before its outputs have ended. */
function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // It ended in this very moment.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

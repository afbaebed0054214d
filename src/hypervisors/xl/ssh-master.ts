import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  explainSsh,
  type SshTransport,
  sshDestination,
  withoutDebugRecords,
  writeSshFiles,
} from "../../libvirt-rpc/ssh.ts";

/** ssh needs room behind the path for a name of its own, and all of it must fit into a socket's address. */
const MAX_DIRECTORY_CHARS = 60;
/** A host that says nothing for this long is gone. */
const ALIVE_SECONDS = 5;
const ALIVE_COUNT = 6;

/** Says that the login shell runs, and ends with our end of the pipe: no login outlives this process. */
const SESSION = "echo ready && exec cat";

/** What is kept of what the master writes: its beginning says which key was shown, its end why it gave up. */
const STDERR_HEAD_CHARS = 16_384;
const STDERR_TAIL_CHARS = 8_192;
const KILL_GRACE_MS = 2_000;

/** One login to a host, over which any number of commands run. */
export interface SshMaster {
  /** The arguments of ssh for a command over this login, up to the host's name. */
  readonly clientArguments: readonly string[];
  /** Resolves when the login has ended, with why: a ConnectionError. */
  readonly ended: Promise<Error>;
  close(): Promise<void>;
}

/** Logs in. Rejects with a ConnectionError, or with the signal's reason. */
export async function openSshMaster(transport: SshTransport, signal: AbortSignal): Promise<SshMaster> {
  signal.throwIfAborted();
  const directory = await mkdtemp(path.join(shortDirectory(), "drover-xl-"));
  // At once and not in the background, so that no key is left behind by a process that ends here.
  const cleanUp = (): void => {
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const socket = path.join(directory, "m");
    const files = await writeSshFiles(directory, transport);
    const destination = sshDestination(transport, files, [
      "ControlMaster=yes",
      `ControlPath=${socket}`,
      "ControlPersist=no",
      `ServerAliveInterval=${ALIVE_SECONDS}`,
      `ServerAliveCountMax=${ALIVE_COUNT}`,
    ]);
    const child = spawn("ssh", [...destination, SESSION], { stdio: "pipe", detached: true });
    const ended = endOf(child, transport.host);
    void ended.then(cleanUp);
    await ready(child, ended, signal);
    // Behind the login ssh has no more use for them.
    for (const file of [files.knownHosts, files.identity]) if (file !== null) rmSync(file, { force: true });
    return { clientArguments: clientArguments(socket), ended, close: () => end(child, ended) };
  } catch (error) {
    cleanUp();
    throw error;
  }
}

function shortDirectory(): string {
  const directory = tmpdir();
  return directory.length <= MAX_DIRECTORY_CHARS ? directory : "/tmp";
}

/** Without its master a client would log in by itself: the command that it reaches the host by fails instead. */
function clientArguments(socket: string): readonly string[] {
  const options = ["BatchMode=yes", "ControlMaster=no", "ProxyCommand=false"];
  return ["-F", "none", "-T", "-S", socket, ...options.flatMap((option) => ["-o", option]), "--", "host"];
}

/** Why ssh ended. */
function endOf(child: ChildProcessWithoutNullStreams, host: string): Promise<Error> {
  let head = "";
  let tail = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    const room = STDERR_HEAD_CHARS - head.length;
    head += text.slice(0, room);
    tail = withoutDebugRecords(tail + text.slice(room)).slice(-STDERR_TAIL_CHARS);
  });
  // A pipe that breaks is followed by the end, which says why.
  child.stdin.on("error", () => undefined);
  const { promise, resolve } = Promise.withResolvers<Error>();
  const explain = (how: string): void => {
    resolve(explainSsh(host, how, head + tail));
  };
  child.once("error", (error) => {
    explain(error.message);
  });
  child.once("close", (code, signal) => {
    explain(signal ?? `exit code ${code ?? "unknown"}`);
  });
  return promise;
}

async function ready(
  child: ChildProcessWithoutNullStreams,
  ended: Promise<Error>,
  signal: AbortSignal,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  child.stdout.once("data", () => {
    resolve(undefined);
  });
  child.stdout.resume();
  void ended.then(reject);
  const stop = (): void => {
    child.kill("SIGTERM");
    reject(signal.reason as Error);
  };
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  try {
    await promise;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

async function end(child: ChildProcessWithoutNullStreams, ended: Promise<Error>): Promise<void> {
  child.kill("SIGTERM");
  const killer = setTimeout(() => child.kill("SIGKILL"), KILL_GRACE_MS);
  await ended;
  clearTimeout(killer);
}

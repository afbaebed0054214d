import { join } from "node:path";
import { execa } from "execa";
import { type Dom0Access, dom0SshArgs, dom0SshOptions } from "../../../src/setup/xen-host/dom0-ssh.mjs";

/** How a program in dom0 ended. */
export interface Dom0Result {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs programs in dom0 behind Drover's back. */
export interface Dom0 {
  /**
   * Runs a program as root to its end, whatever its status.
   * @throws Error when dom0 cannot be reached
   */
  run(argv: readonly [string, ...string[]]): Promise<Dom0Result>;
  /**
   * Waits until a file, which may not exist yet, has text that matches. Unlike looking at it again and again, this costs
   * the emulated machine nothing.
   * @throws Error when it has none in time, with the text it has
   */
  waitForText(path: string, pattern: RegExp, timeoutSeconds: number): Promise<RegExpExecArray>;
  /** Copies a file of this machine to a path in dom0, whose directory is made. */
  upload(file: string, path: string): Promise<void>;
}

const SSH_FAILED = 255;

/**
 * Opens one connection, which all programs share: making one takes a second or two in an emulated machine. It ends with
 * the machine.
 */
export async function connectDom0(access: Dom0Access, dir: string): Promise<Dom0> {
  const socket = join(dir, "dom0.ssh");
  const master = ["-f", "-N", "-M", "-S", socket, "-E", join(dir, "ssh.log")];
  await execa("ssh", [...master, ...dom0SshOptions(access)], { stdio: "ignore" });
  const ssh = async (argv: readonly string[], inputFile?: string): Promise<Dom0Result> => {
    const result = await execa("ssh", ["-S", socket, ...dom0SshArgs(access, argv)], {
      reject: false,
      stripFinalNewline: false,
      ...(inputFile === undefined ? { stdin: "ignore" as const } : { inputFile }),
    });
    const { exitCode, stdout, stderr } = result;
    if (exitCode === undefined || exitCode === SSH_FAILED) {
      throw new Error(`dom0 cannot be reached: ${stderr}`, { cause: result });
    }
    return { exitCode, stdout, stderr };
  };
  return {
    run: (argv) => ssh(argv),
    waitForText: async (path, pattern, timeoutSeconds) => {
      const tail = ["timeout", String(timeoutSeconds), "tail", "-c", "+1", "-F", path];
      const following = execa("ssh", ["-S", socket, ...dom0SshArgs(access, tail)], {
        reject: false,
        stdin: "ignore",
        buffer: { stdout: false },
      });
      let text = "";
      for await (const chunk of following.iterable({ from: "stdout", preserveNewlines: true })) {
        text += chunk;
        const found = pattern.exec(text);
        if (found === null) continue;
        following.kill();
        return found;
      }
      const { stderr } = await following;
      throw new Error(`${path} has nothing that matches ${String(pattern)}: ${text}${stderr}`);
    },
    upload: async (file, path) => {
      const script = 'mkdir -p "$(dirname "$1")" && cat >"$1"';
      const { exitCode, stderr } = await ssh(["sh", "-c", script, "sh", path], file);
      if (exitCode !== 0) throw new Error(`cannot write ${path} in dom0: ${stderr}`);
    },
  };
}

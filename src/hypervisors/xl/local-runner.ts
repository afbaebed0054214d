import { spawn } from "node:child_process";
import { HypervisorError } from "../hypervisor.ts";
import type { Runner } from "./runner.ts";

/** Runs programs on this machine. Such a connection is never lost. */
export function localRunner(): Runner {
  const over = new AbortController();
  return {
    over: over.signal,
    isLoss: () => false,
    start: ([program, ...args], takesInput) => {
      const child = spawn(program, args, {
        cwd: "/",
        // What was begun on the host goes on when this process is told to end, as it does over ssh.
        detached: true,
        stdio: [takesInput ? "pipe" : "ignore", "pipe", "pipe"],
      });
      const giveUp = (): void => {
        child.stdin?.destroy();
        child.stdout?.destroy();
        child.stderr?.destroy();
        child.unref();
      };
      return { child, giveUp };
    },
    onClose: () => undefined,
    close: () => {
      over.abort(new HypervisorError("unreachable", "the connection to the host was closed"));
      return Promise.resolve();
    },
  };
}

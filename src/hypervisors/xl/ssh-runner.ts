import { spawn } from "node:child_process";
import type { SshTransport } from "../../libvirt-rpc/ssh.ts";
import { HypervisorError } from "../hypervisor.ts";
import { shellLine } from "./quote.ts";
import type { Runner } from "./runner.ts";
import { loginFailed } from "./ssh-errors.ts";
import { openSshMaster } from "./ssh-master.ts";

/** ssh's own status, for whatever stood between. A program's 255 never gets here: see host-program.ts. */
const SSH_FAILED = 255;

/**
 * Logs in to a host and runs programs over that one login.
 * @throws HypervisorError `unreachable`, `host-key-unknown`, `authentication` or `aborted`
 */
export async function sshRunner(transport: SshTransport, signal: AbortSignal): Promise<Runner> {
  const master = await openSshMaster(transport, signal).catch((error: unknown) => {
    throw loginFailed(error, signal);
  });
  const over = new AbortController();
  const listeners = new Set<(error: HypervisorError) => void>();
  let lost: HypervisorError | null = null;
  void master.ended.then((cause) => {
    if (over.signal.aborted) return;
    lost = new HypervisorError("unreachable", `the connection to the host was lost: ${cause.message}`, {
      cause,
    });
    over.abort(lost);
    for (const listener of listeners) listener(lost);
    listeners.clear();
  });
  return {
    over: over.signal,
    isLoss: (exitCode) => exitCode === SSH_FAILED,
    start: (argv, takesInput) => {
      const child = spawn("ssh", [...master.clientArguments, shellLine(argv)], {
        stdio: [takesInput ? "pipe" : "ignore", "pipe", "pipe"],
      });
      return { child, giveUp: () => void child.kill("SIGTERM") };
    },
    onClose: (listener) => {
      if (lost === null) listeners.add(listener);
      else queueMicrotask(listener.bind(null, lost));
    },
    close: async () => {
      over.abort(new HypervisorError("unreachable", "the connection to the host was closed"));
      await master.close();
    },
  };
}

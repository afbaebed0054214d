import { ConnectionError, HostKeyUnknownError } from "../../libvirt-rpc/ssh.ts";
import { HypervisorError } from "../hypervisor.ts";

/** What a login that failed means to who wanted it; what is none of ssh's errors is returned as it is. */
export function loginFailed(error: unknown, signal: AbortSignal): unknown {
  if (error instanceof HostKeyUnknownError) return unknownHostKey(error);
  if (error instanceof ConnectionError) {
    const reason = error.kind === "auth" ? "authentication" : "unreachable";
    return new HypervisorError(reason, error.message, { cause: error });
  }
  if (signal.aborted && error === signal.reason) {
    return new HypervisorError("aborted", "the login to the host was ended before it was done", {
      cause: error,
    });
  }
  return error;
}

function unknownHostKey(error: HostKeyUnknownError): HypervisorError {
  const changed = String(error.changed);
  const details = error.offered === null ? { changed } : { changed, ...error.offered };
  return new HypervisorError("host-key-unknown", error.message, { cause: error, details });
}

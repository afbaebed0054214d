import {
  CallTimeoutError,
  ConnectionError,
  errorCode,
  errorDomain,
  HostKeyUnknownError,
  LibvirtError,
} from "../../libvirt-rpc/index.ts";
import { HypervisorError, type HypervisorErrorReason } from "../hypervisor.ts";

/** What each of libvirt's error codes (virErrorNumber) means to us, where the message does not say more. */
const REASON_BY_CODE: ReadonlyMap<number, HypervisorErrorReason> = new Map<number, HypervisorErrorReason>([
  [errorCode.noDomain, "not-found"],
  [errorCode.noNetwork, "not-found"],
  [errorCode.noNetworkFilter, "not-found"],
  [errorCode.noStoragePool, "not-found"],
  [errorCode.noStorageVol, "not-found"],
  [errorCode.domExist, "already-exists"],
  [errorCode.networkExist, "already-exists"],
  [errorCode.storageVolExist, "already-exists"],
  [errorCode.operationInvalid, "invalid-state"],
  [errorCode.operationTimeout, "busy"],
  [errorCode.resourceBusy, "busy"],
  [errorCode.xmlError, "invalid-spec"],
  [errorCode.xmlInvalidSchema, "invalid-spec"],
  [errorCode.configUnsupported, "invalid-spec"],
  [errorCode.invalidArg, "invalid-spec"],
  [errorCode.cpuIncompatible, "invalid-spec"],
  [errorCode.noSupport, "unsupported"],
  [errorCode.operationUnsupported, "unsupported"],
  [errorCode.argumentUnsupported, "unsupported"],
  [errorCode.authFailed, "authentication"],
  [errorCode.authCancelled, "authentication"],
  [errorCode.authUnavailable, "authentication"],
  [errorCode.accessDenied, "authentication"],
  [errorCode.operationDenied, "authentication"],
  [errorCode.operationAborted, "aborted"],
  [errorCode.agentUnresponsive, "timeout"],
  [errorCode.agentUnsynced, "timeout"],
  [errorCode.noConnect, "unreachable"],
  [errorCode.invalidConn, "unreachable"],
]);

/**
 * What only the message tells: libvirt has one code for all errors of the system and of QEMU. The texts are
 * strerror's and QEMU's, which are the same in every version; libvirtd's own are translated only by a locale that
 * its service does not set.
 */
const REASON_BY_MESSAGE: readonly (readonly [RegExp, HypervisorErrorReason])[] = [
  [/No space left on device|Disk quota exceeded|enospc/i, "storage-full"],
  [/cannot allocate memory|cannot set up guest memory|insufficient memory/i, "no-capacity"],
  [
    /cannot acquire state change lock|has asynchronous jobs running|is still in use|is still being allocated/i,
    "busy",
  ],
  [/No more available PCI slots|no free PCI/i, "no-capacity"],
  [/active console session exists/i, "busy"],
  [/already exists|is already defined/i, "already-exists"],
  [/domain is not running|domain is already running|is already active|not active/i, "invalid-state"],
  [/guest agent is not connected|guest agent disappeared/i, "invalid-state"],
  [/guest agent is not available due to an error/i, "failed"],
  [/monitor closed|end of file from.*monitor/i, "failed"],
];

/** Codes that say little of their own, so that the message decides first. */
const VAGUE_CODES: ReadonlySet<number> = new Set([
  errorCode.agentUnresponsive,
  errorCode.internalError,
  errorCode.operationFailed,
  errorCode.operationInvalid,
  errorCode.operationTimeout,
  errorCode.systemError,
]);

/** A file or device that a definition names but the host does not have, as strerror and libvirt tell it. */
const MISSING_FILE = /No such file or directory/i;

/**
 * Turns what the RPC client threw into the one error of all drivers; libvirt's own words stay in the message. An
 * error that is none of the client's (such as one thrown by `beforeSend`) is returned as it is.
 */
export function toHypervisorError(error: unknown, signal?: AbortSignal): Error {
  if (error instanceof HypervisorError) return error;
  if (error instanceof LibvirtError) return fromLibvirt(error);
  if (error instanceof HostKeyUnknownError) return fromHostKey(error);
  if (error instanceof ConnectionError) return connectionLost(error);
  if (error instanceof CallTimeoutError) {
    return new HypervisorError("timeout", `the host did not answer in time: ${error.message}`, {
      cause: error,
    });
  }
  if (signal?.aborted === true && error === signal.reason) {
    return new HypervisorError("aborted", "the call was ended before the host answered", { cause: error });
  }
  return error instanceof Error ? error : new Error(String(error));
}

/** Another call on the same guest is not done: most often for the guest's QEMU hangs. */
const GUEST_IS_HELD = /cannot acquire state change lock/i;

function fromLibvirt(error: LibvirtError): HypervisorError {
  const reason = error.unsupported ? "unsupported" : reasonOf(error);
  const message = GUEST_IS_HELD.test(error.message)
    ? `${error.message}. An earlier call on the guest is not done, and its QEMU may hang: a forced stop ends it.`
    : error.message;
  return new HypervisorError(reason, message, {
    cause: error,
    details: { libvirtCode: String(error.code), libvirtDomain: String(error.domain) },
  });
}

function reasonOf(error: LibvirtError): HypervisorErrorReason {
  const byCode = REASON_BY_CODE.get(error.code);
  if (byCode !== undefined && !VAGUE_CODES.has(error.code)) return byCode;
  const byMessage = REASON_BY_MESSAGE.find(([pattern]) => pattern.test(error.message))?.[1];
  if (byMessage !== undefined) return byMessage;
  if (error.code === errorCode.systemError && MISSING_FILE.test(error.message)) return "not-found";
  if (error.domain === errorDomain.rpc && error.code === errorCode.rpc) return "unreachable";
  return byCode ?? "failed";
}

function fromHostKey(error: HostKeyUnknownError): HypervisorError {
  const details =
    error.offered === null
      ? { changed: String(error.changed) }
      : {
          changed: String(error.changed),
          algorithm: error.offered.algorithm,
          fingerprint: error.offered.fingerprint,
        };
  return new HypervisorError("host-key-unknown", error.message, { cause: error, details });
}

const START_DAEMON = "See that libvirtd runs on the host, and that the network reaches it.";

/** What to do about a connection that is not there, where the message does not say it. */
const ADVICE: Partial<Readonly<Record<ConnectionError["kind"], string>>> = {
  refused: START_DAEMON,
  closed: START_DAEMON,
  timeout: "See whether libvirtd on the host hangs, and whether the network reaches it.",
};

/** What a connection that ended means to those who used it. */
export function connectionLost(error: ConnectionError): HypervisorError {
  const reason: HypervisorErrorReason =
    error.kind === "auth" || error.kind === "tls" ? "authentication" : "unreachable";
  const advice = ADVICE[error.kind];
  const message = advice === undefined ? error.message : `${error.message}. ${advice}`;
  return new HypervisorError(reason, message, { cause: error });
}

/** True for an error that says that a thing is not there. */
export function isNotFound(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "not-found";
}

/** True for an error that says that the domain's state does not allow the call. */
export function isInvalidState(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "invalid-state";
}

/** True for an error that says that another call on the domain is not done. */
export function isBusy(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "busy";
}

/** True for an error that says that the driver or the daemon has no such ability. */
export function isUnsupported(error: unknown): boolean {
  return error instanceof HypervisorError && error.reason === "unsupported";
}

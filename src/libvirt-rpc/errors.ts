import { errorCode, errorDomain } from "./error-codes.ts";

/** An error the daemon sent, field by field as it was sent. */
export interface RemoteErrorFields {
  readonly code: number;
  readonly domain: number;
  readonly level: number;
  readonly message: string | null;
  readonly str1: string | null;
  readonly str2: string | null;
  readonly str3: string | null;
  readonly int1: number;
  readonly int2: number;
}

/** The daemon refused or failed a call. `code` and `domain` are those of error-codes.ts. */
export class LibvirtError extends Error {
  override readonly name = "LibvirtError";
  readonly procedure: string;
  readonly code: number;
  readonly domain: number;
  readonly level: number;
  readonly str1: string | null;
  readonly str2: string | null;
  readonly str3: string | null;
  readonly int1: number;
  readonly int2: number;

  constructor(procedure: string, fields: RemoteErrorFields) {
    super(fields.message ?? `libvirt error ${fields.code} without a message`);
    this.procedure = procedure;
    this.code = fields.code;
    this.domain = fields.domain;
    this.level = fields.level;
    this.str1 = fields.str1;
    this.str2 = fields.str2;
    this.str3 = fields.str3;
    this.int1 = fields.int1;
    this.int2 = fields.int2;
  }

  /**
   * The daemon does not know this procedure or program (it is older than the call), or its driver
   * has no such ability. An unknown procedure has no code of its own, only the message.
   */
  get unsupported(): boolean {
    if (this.code === errorCode.noSupport) return true;
    const fromRpc = this.domain === errorDomain.rpc || this.domain === errorDomain.remote;
    return (
      fromRpc && this.code === errorCode.rpc && /^(unknown procedure|Cannot find program)/i.test(this.message)
    );
  }
}

/**
 * Why there is no connection: nobody listens or the name is unknown (`refused`), it ended (`closed`),
 * nobody answered in time (`timeout`), ssh does not know the host's key, we may not enter (`auth`),
 * the certificates do not fit (`tls`), or the peer does not speak this protocol (`protocol`).
 */
export type ConnectionErrorKind =
  | "refused"
  | "closed"
  | "timeout"
  | "host-key-unknown"
  | "auth"
  | "tls"
  | "protocol";

/** There is no connection, or there is none any more. Whether a call under way took effect is unknown. */
export class ConnectionError extends Error {
  override readonly name: string = "ConnectionError";
  readonly kind: ConnectionErrorKind;

  constructor(kind: ConnectionErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** The key an ssh server showed: `ssh-ed25519`, `SHA256:…` as OpenSSH prints it. */
export interface HostKey {
  readonly algorithm: string;
  readonly fingerprint: string;
}

/** The ssh server's key is not among the known ones, or is another than the known one. */
export class HostKeyUnknownError extends ConnectionError {
  override readonly name = "HostKeyUnknownError";
  /** Null when ssh did not tell. */
  readonly offered: HostKey | null;
  /** True when another key is known for this host: it was reinstalled, or somebody stands in between. */
  readonly changed: boolean;

  constructor(message: string, offered: HostKey | null, changed: boolean, options?: ErrorOptions) {
    super("host-key-unknown", message, options);
    this.offered = offered;
    this.changed = changed;
  }
}

/** No reply within the time-out. The daemon may still be at it: observe before acting again. */
export class CallTimeoutError extends Error {
  override readonly name = "CallTimeoutError";
  readonly procedure: string;
  readonly timeoutMs: number;

  constructor(procedure: string, timeoutMs: number) {
    super(`${procedure} was not answered within ${timeoutMs} ms`);
    this.procedure = procedure;
    this.timeoutMs = timeoutMs;
  }
}

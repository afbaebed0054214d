/** What a caller says about a connection and a call. */

/** How the daemon is reached. PEM texts are strings, not paths. */
export type Transport =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | {
      readonly kind: "tls";
      readonly host: string;
      readonly port: number;
      readonly ca: string;
      readonly cert: string;
      readonly key: string;
    }
  | SshTransport;

/**
 * OpenSSH as a child process. Without `socketPath` the far side runs virt-ssh-helper, which finds the
 * daemon itself; with it, socat or nc on that socket. Without `privateKey` the identities of the
 * user who runs us are tried. Without `knownHosts` no host key is known, so every host is refused.
 */
export interface SshTransport {
  readonly kind: "ssh";
  readonly host: string;
  readonly port?: number;
  readonly user?: string;
  readonly privateKey?: string;
  readonly knownHosts?: string;
  readonly socketPath?: string;
}

/** A peer that says nothing for `intervalMs * count` is given up. */
export interface KeepaliveOptions {
  readonly intervalMs: number;
  readonly count: number;
}

export interface ConnectOptions {
  readonly transport: Transport;
  /** What the daemon opens, in its own words: `qemu:///system`, `test:///default`. */
  readonly uri: string;
  readonly signal?: AbortSignal;
  /** Until the daemon has opened the URI. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Default of every call. 30,000. */
  readonly callTimeoutMs?: number;
  /** The daemon serves five calls of one client at once by default, and reads none beyond. Default 4. */
  readonly maxCallsInFlight?: number;
  /** Default 5,000 and 3. */
  readonly keepalive?: KeepaliveOptions;
}

export interface CallOptions {
  /** Its reason is what the call rejects with. The daemon goes on with what it has begun. */
  readonly signal?: AbortSignal;
  /** From the call until the reply, waiting for a free slot included. */
  readonly timeoutMs?: number;
  /** Runs in the tick of the write to the socket; what it throws prevents the write and rejects the call. */
  readonly beforeSend?: () => void;
}

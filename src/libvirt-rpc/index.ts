/** A client of libvirt's RPC protocol. See docs/checklists/add-a-libvirt-procedure.md. */
export { connectLibvirt } from "./connect.ts";
export type { LibvirtConnection } from "./connection.ts";
export { errorCode, errorDomain } from "./error-codes.ts";
export {
  CallTimeoutError,
  ConnectionError,
  type ConnectionErrorKind,
  type HostKey,
  HostKeyUnknownError,
  LibvirtError,
} from "./errors.ts";
export type { CallOptions, ConnectOptions, KeepaliveOptions, SshTransport, Transport } from "./options.ts";
export type { Procedure } from "./procedure.ts";
export { type DomainEvent, type DomainEventKind, domainEventId } from "./procedures/events.ts";
export * from "./procedures/index.ts";
export { LibvirtSession, type SessionOptions, type SessionState } from "./session.ts";
export type { DownloadStream } from "./streams.ts";
export {
  type Domain,
  type Network,
  type Pool,
  type TypedParam,
  typedParamMap,
  type Volume,
} from "./structures.ts";
export { dialLoopback, type HostTransport } from "./transports/loopback.ts";
export type { TypedValue } from "./typed-value.ts";
export { XdrError } from "./xdr.ts";

import { existsSync } from "node:fs";
import type { Transport } from "../../libvirt-rpc/index.ts";
import { type HostCredentials, HypervisorError } from "../hypervisor.ts";
import type { DaemonMode, LibvirtEndpoint } from "./uri.ts";

/** Where libvirt's daemons listen: virtqemud alone (`direct`), or libvirtd for everything (`legacy`). */
const SOCKETS = { direct: "/run/libvirt/virtqemud-sock", legacy: "/run/libvirt/libvirt-sock" } as const;

/** How the RPC client reaches an endpoint. Rejects a transport whose credentials are missing (`authentication`). */
export function transportFor(
  endpoint: LibvirtEndpoint,
  credentials: HostCredentials,
  fileExists: (path: string) => boolean = existsSync,
): Transport {
  switch (endpoint.kind) {
    case "unix":
      return { kind: "unix", path: endpoint.socket ?? localSocket(endpoint.mode, fileExists) };
    case "tcp":
      return { kind: "tcp", host: endpoint.host, port: endpoint.port };
    case "tls":
      return tlsTransport(endpoint.host, endpoint.port, credentials);
    case "ssh":
      return sshTransport(endpoint, credentials);
  }
}

/** As libvirt itself chooses: virtqemud where it has a socket, else libvirtd. */
function localSocket(mode: DaemonMode, fileExists: (path: string) => boolean): string {
  if (mode !== "auto") return SOCKETS[mode];
  return fileExists(SOCKETS.direct) ? SOCKETS.direct : SOCKETS.legacy;
}

function tlsTransport(host: string, port: number, { tls }: HostCredentials): Transport {
  if (tls === undefined) {
    throw new HypervisorError(
      "authentication",
      "qemu+tls:// needs credentials.tls: the CA's certificate, and a client certificate with its key",
    );
  }
  const { caCertificate: ca, clientCertificate: cert, clientKey: key } = tls;
  return { kind: "tls", host, port, ca, cert, key };
}

function sshTransport(
  endpoint: Extract<LibvirtEndpoint, { kind: "ssh" }>,
  { ssh }: HostCredentials,
): Transport {
  // Without a path the far side's virt-ssh-helper finds the daemon by the same rule as above.
  const socketPath = endpoint.socket ?? (endpoint.mode === "auto" ? null : SOCKETS[endpoint.mode]);
  return {
    kind: "ssh",
    host: endpoint.host,
    ...(endpoint.port === null ? {} : { port: endpoint.port }),
    ...(endpoint.user === null ? {} : { user: endpoint.user }),
    ...(ssh === undefined ? {} : { privateKey: ssh.privateKey }),
    ...(ssh?.knownHosts === undefined ? {} : { knownHosts: ssh.knownHosts }),
    ...(socketPath === null ? {} : { socketPath }),
  };
}

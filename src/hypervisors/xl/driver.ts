import type { HostTransport } from "../../libvirt-rpc/transports/loopback.ts";
import {
  type Call,
  type Capability,
  type HostConnection,
  type HostDriver,
  type HostTarget,
  HypervisorError,
} from "../hypervisor.ts";
import { hostConnection } from "./connection.ts";
import { OpenConsoles } from "./consoles.ts";
import { capabilitiesOf } from "./guest-types.ts";
import { DEFAULT_POOL, installationPaths } from "./host-file-paths.ts";
import { HostLink } from "./host-link.ts";
import { localRunner } from "./local-runner.ts";
import { probe } from "./probe.ts";
import type { Runner } from "./runner.ts";
import { sshRunner } from "./ssh-runner.ts";
import { parseXlUri, XL_SCHEMES, type XlEndpoint } from "./uri.ts";

/** For each answer of the host until it is connected. */
const CONNECT_TIMEOUT_MS = 20_000;
/** Less than whoever connects waits, so that he hears what an earlier owner's change is that has not ended. */
const FENCE_WAIT_SECONDS = 10;
const NOTHING: ReadonlySet<Capability> = new Set();

/** Xen through its own toolstack, xl, on this machine or over ssh. */
export const xlDriver: HostDriver = {
  name: "xl",
  schemes: XL_SCHEMES,
  parseUri: (text) => {
    const uri = parseXlUri(text);
    return "error" in uri ? uri : { hypervisor: "xen", uri: uri.canonical };
  },
  declares: (hypervisor, guestType) => (hypervisor === "xen" ? new Set(capabilitiesOf(guestType)) : NOTHING),
  connect,
};

async function connect(
  target: HostTarget,
  { signal }: { readonly signal: AbortSignal },
): Promise<HostConnection> {
  const uri = parseXlUri(target.uri);
  if ("error" in uri) throw new HypervisorError("invalid-spec", `the host's URI is refused: ${uri.error}`);
  const { directory } = installationPaths(target.installationId);
  const transport = transportOf(uri.endpoint, target);
  const login = (during: AbortSignal): Promise<Runner> => openRunner(transport, during);
  const runner = await login(signal);
  const link = new HostLink({ runner, directory, fence: target.fence ?? null });
  const call: Call = { signal, timeoutMs: CONNECT_TIMEOUT_MS, beforeSend: () => undefined };
  try {
    // A pool that an administrator named is his to make.
    const own = uri.pools.filter(({ path }) => path === DEFAULT_POOL.path).map(({ path }) => path);
    await link.takeHost(call, FENCE_WAIT_SECONDS, own);
    const consoles = new OpenConsoles(link, { login, transport, directory });
    return hostConnection({ runner, link, target, uri, findings: await probe(link, call), consoles });
  } catch (error) {
    await runner.close();
    throw error;
  }
}

function openRunner(transport: HostTransport, signal: AbortSignal): Promise<Runner> {
  return transport.kind === "ssh" ? sshRunner(transport, signal) : Promise.resolve(localRunner());
}

function transportOf(endpoint: XlEndpoint, { credentials }: HostTarget): HostTransport {
  // This machine: nothing is connected to.
  if (endpoint.kind === "local") return { kind: "unix", path: "" };
  const { privateKey, knownHosts } = credentials.ssh ?? {};
  return {
    kind: "ssh",
    host: endpoint.host,
    port: endpoint.port,
    user: endpoint.user,
    ...(privateKey === undefined ? {} : { privateKey }),
    ...(knownHosts === undefined ? {} : { knownHosts }),
  };
}

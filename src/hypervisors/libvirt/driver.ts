import {
  connectGetType,
  connectLibvirt,
  type LibvirtConnection,
  type Transport,
} from "../../libvirt-rpc/index.ts";
import {
  type Capability,
  type HostConnection,
  type HostDriver,
  type HostTarget,
  HypervisorError,
} from "../hypervisor.ts";
import { hostConnection } from "./connection.ts";
import { toHypervisorError } from "./errors.ts";
import { subscribe } from "./events.ts";
import type { LibvirtDriverType } from "./host-context.ts";
import { QEMU_CAPABILITIES } from "./probe.ts";
import { transportFor } from "./transport.ts";
import { LIBVIRT_SCHEMES, type LibvirtUri, parseLibvirtUri } from "./uri.ts";

/** Until the daemon has opened its URI; over ssh this takes the login too. */
const CONNECT_TIMEOUT_MS = 20_000;
const NOTHING: ReadonlySet<Capability> = new Set();

/** KVM and plain QEMU through libvirt's RPC protocol, and libvirt's own mock. */
export const libvirtDriver: HostDriver = {
  name: "libvirt",
  schemes: LIBVIRT_SCHEMES,
  parseUri: (text) => {
    const uri = parseLibvirtUri(text);
    return "error" in uri ? uri : { hypervisor: "kvm", uri: uri.canonical };
  },
  declares: (hypervisor, guestType) =>
    hypervisor === "kvm" && guestType === "hvm" ? new Set(QEMU_CAPABILITIES) : NOTHING,
  connect: async (target, { signal }) => {
    try {
      return await connect(target, signal);
    } catch (error) {
      throw toHypervisorError(error, signal);
    }
  },
};

async function connect(target: HostTarget, signal: AbortSignal): Promise<HostConnection> {
  const uri = parseLibvirtUri(target.uri);
  if ("error" in uri) throw new HypervisorError("invalid-spec", `the host's URI is refused: ${uri.error}`);
  const transport = transportFor(uri.endpoint, target.credentials);
  const open = (openSignal: AbortSignal, timeoutMs: number) =>
    openConnection(uri, transport, openSignal, timeoutMs);
  const main = await open(signal, CONNECT_TIMEOUT_MS);
  try {
    const { type } = await main.call(connectGetType, undefined, { signal, timeoutMs: CONNECT_TIMEOUT_MS });
    const driverType = readDriverType(type);
    await subscribe(main, { signal, timeoutMs: CONNECT_TIMEOUT_MS });
    return hostConnection({ main, open, target, driverType, transport });
  } catch (error) {
    await main.close();
    throw error;
  }
}

function openConnection(
  uri: LibvirtUri,
  transport: Transport,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<LibvirtConnection> {
  return connectLibvirt({ transport, uri: uri.open, signal, connectTimeoutMs: timeoutMs });
}

function readDriverType(type: string): LibvirtDriverType {
  const upper = type.toUpperCase();
  if (upper === "QEMU" || upper === "TEST") return upper;
  throw new HypervisorError("unsupported", `libvirt's driver '${type}' on the host is not one we drive`);
}

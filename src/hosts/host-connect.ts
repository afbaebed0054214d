import type { HostConnection, HostDriver } from "../hypervisors/hypervisor.ts";
import { HypervisorError } from "../hypervisors/hypervisor.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { HostAccessData } from "./host-store.ts";

/** Which driver serves a URI; from hypervisors/index.ts. */
export type DriverForUri = (uri: string) => HostDriver | null;

/** Long enough for an ssh handshake over a slow line, short enough to be told of a dead host soon. */
const CONNECT_TIMEOUT_MS = 20_000;

/**
 * Opens a connection to a host. Rejects with HypervisorError: `unreachable` also when it took longer than
 * `timeoutMs`; the signal ends the wait.
 */
export async function connectHost(
  driverForUri: DriverForUri,
  access: Pick<HostAccessData, "uri" | "credentials" | "accelerator">,
  installationId: InstallationId,
  options: { readonly signal: AbortSignal; readonly timeoutMs?: number; readonly fence?: string },
): Promise<HostConnection> {
  const driver = driverForUri(access.uri);
  if (driver === null) throw new HypervisorError("unsupported", `no driver serves the URI ${access.uri}`);
  const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
  const limit = AbortSignal.timeout(timeoutMs);
  try {
    return await driver.connect(
      {
        uri: access.uri,
        credentials: access.credentials,
        accelerator: access.accelerator,
        installationId,
        ...(options.fence === undefined ? {} : { fence: options.fence }),
      },
      { signal: AbortSignal.any([options.signal, limit]) },
    );
  } catch (error) {
    if (limit.aborted && !options.signal.aborted) {
      throw new HypervisorError("unreachable", `the host did not answer within ${timeoutMs / 1000} seconds`, {
        cause: error,
      });
    }
    throw error;
  }
}

/**
 * The fence of a host's owner. Epochs grow with every owner of a host; a host that was removed and registered anew has
 * another id, and ids grow with time.
 */
export function fenceOf(hostId: HostId, epoch: bigint): string {
  return `${hostId}.${String(epoch).padStart(20, "0")}`;
}

import type { HostConnection, HostDriver } from "../hypervisors/hypervisor.ts";
import { HypervisorError } from "../hypervisors/hypervisor.ts";
import type { InstallationId } from "../lib/ids.ts";
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
  options: { readonly signal: AbortSignal; readonly timeoutMs?: number },
): Promise<HostConnection> {
  const driver = driverForUri(access.uri);
  if (driver === null) throw new HypervisorError("unsupported", `no driver serves the URI ${access.uri}`);
  const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
  const limit = AbortSignal.timeout(timeoutMs);
  try {
    return await driver.connect(
      { uri: access.uri, credentials: access.credentials, accelerator: access.accelerator, installationId },
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

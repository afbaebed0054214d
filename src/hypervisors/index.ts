import type { HostDriver, ParsedHostUri } from "./hypervisor.ts";
import { libvirtDriver } from "./libvirt/driver.ts";
import { createSimDriver } from "./sim/sim-driver.ts";
import { xlDriver } from "./xl/driver.ts";

/** What the drivers need of the process they run in. */
export interface DriverDeps {
  /** Where simulated hosts keep their world: the service's own database, on connections of their own. */
  readonly databaseUrl: string;
}

/** All drivers, one line each. */
export function createDrivers(deps: DriverDeps): readonly HostDriver[] {
  return [libvirtDriver, xlDriver, createSimDriver(deps)];
}

const SCHEME = /^([a-z][a-z0-9+.-]*):/;

/** The driver that serves a host's URI, with what the URI says; or what is wrong with it. Touches no host. */
export function driverForUri(
  drivers: readonly HostDriver[],
  uri: string,
): { readonly driver: HostDriver; readonly parsed: ParsedHostUri } | { readonly error: string } {
  const scheme = SCHEME.exec(uri)?.[1];
  const driver = drivers.find(({ schemes }) => scheme !== undefined && schemes.includes(scheme));
  if (driver === undefined) {
    const known = drivers.flatMap(({ schemes }) => schemes).join(", ");
    return { error: `a host's URI begins with one of these schemes, a colon and two slashes: ${known}` };
  }
  const parsed = driver.parseUri(uri);
  return "error" in parsed ? parsed : { driver, parsed };
}

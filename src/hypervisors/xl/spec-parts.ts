import { type DomainSpec, HypervisorError, type VolumeRef } from "../hypervisor.ts";
import { isNotFound } from "./errors.ts";
import type { HostNames } from "./host-context.ts";
import { isGroupName, logicalVolumePath } from "./lvm-names.ts";
import { poolNamed } from "./pools.ts";
import { PVGRUB_PATHS } from "./pvgrub.ts";
import { isBridgeName } from "./uri.ts";
import { volumePath } from "./volume-names.ts";
import type { DiskSource, ResolvedParts } from "./xl-config.ts";

/** The name of the network that guests have when nothing else is said. */
export const DEFAULT_NETWORK = "default";

/**
 * What a spec's volumes and networks are called on the host. Whether they are there is seen when the domain starts.
 * @throws HypervisorError `invalid-spec` for a pool or a network that the host cannot have
 */
export function resolveParts(spec: DomainSpec, names: HostNames): ResolvedParts {
  const { boot } = spec;
  const pathOf = ({ pool, name }: VolumeRef): string => volumePath(poolNamed(names.pools, pool).path, name);
  const sourceOf = ({ pool, name }: VolumeRef): DiskSource =>
    isGroup(pool, names)
      ? { type: "block", path: logicalVolumePath(pool, name) }
      : { type: "file", path: pathOf({ pool, name }) };
  try {
    return {
      disks: spec.disks.map(({ name, volume }) => ({ name, ...sourceOf(volume) })),
      nics: spec.nics.map(({ name, network }) => ({ name, bridge: bridgeOf(network, names) })),
      kernel: boot.kind === "kernel" ? pathOf(boot.kernel) : loaderOf(spec),
      initrd: boot.kind === "kernel" && boot.initrd !== null ? pathOf(boot.initrd) : null,
    };
  } catch (error) {
    if (!(error instanceof HypervisorError) || !isNotFound(error)) throw error;
    throw new HypervisorError("invalid-spec", error.message, { cause: error });
  }
}

/** Every volume group of the host is a pool by its own name. Kernels are files: there, only directories are pools. */
function isGroup(pool: string, { pools }: HostNames): boolean {
  return isGroupName(pool) && pools.every(({ name }) => name !== pool);
}

/** What runs as the kernel of a guest that finds its own. */
function loaderOf({ boot, guestType }: DomainSpec): string | null {
  if (boot.kind !== "firmware" || boot.firmware !== "pvgrub" || guestType === "hvm") return null;
  return PVGRUB_PATHS[guestType];
}

/** A name of the URI's, `default`, or a bridge's own. */
function bridgeOf(network: string, { networks, defaultBridge }: HostNames): string {
  const named = networks.find(({ name }) => name === network)?.bridge;
  if (named !== undefined) return named;
  if (network === DEFAULT_NETWORK) return defaultBridge;
  if (isBridgeName(network)) return network;
  throw new HypervisorError("invalid-spec", `'${network.slice(0, 80)}' is neither a network nor a bridge`);
}

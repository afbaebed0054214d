import type { VolumeAbility } from "../hypervisor.ts";
import type { XlHost } from "./host.ts";
import { lvmVolumes } from "./lvm-volumes.ts";
import type { XlPool } from "./uri.ts";
import { volumeAbility } from "./volumes.ts";

/** Volumes of all pools of a host: directories by the names that its URI gives them, volume groups by their own. */
export function hostVolumes(host: XlHost, pools: readonly XlPool[]): VolumeAbility {
  const files = volumeAbility(host, pools);
  const logical = lvmVolumes(host);
  const of = (pool: string): VolumeAbility => (pools.some(({ name }) => name === pool) ? files : logical);
  return {
    observeVolume: (ref, call) => of(ref.pool).observeVolume(ref, call),
    createVolume: (spec, call) => of(spec.pool).createVolume(spec, call),
    uploadVolume: (ref, source, sizeBytes, call) => of(ref.pool).uploadVolume(ref, source, sizeBytes, call),
    growVolume: (ref, capacityBytes, call) => of(ref.pool).growVolume(ref, capacityBytes, call),
    deleteVolume: (ref, call) => of(ref.pool).deleteVolume(ref, call),
    listVolumes: (pool, prefix, call) => of(pool).listVolumes(pool, prefix, call),
  };
}

import type { XlHost } from "./host.ts";
import { lvmVolumes } from "./lvm-volumes.ts";
import type { XlPool } from "./uri.ts";
import type { XlVolumes } from "./volume-content.ts";
import { volumeAbility } from "./volumes.ts";

/** Volumes of all pools of a host: directories by the names that its URI gives them, volume groups by their own. */
export function hostVolumes(host: XlHost, pools: readonly XlPool[]): XlVolumes {
  const files = volumeAbility(host, pools);
  const logical = lvmVolumes(host);
  const of = (pool: string): XlVolumes => (pools.some(({ name }) => name === pool) ? files : logical);
  return {
    observeVolume: (ref, call) => of(ref.pool).observeVolume(ref, call),
    createVolume: (spec, call) => of(spec.pool).createVolume(spec, call),
    uploadVolume: (ref, source, sizeBytes, call) => of(ref.pool).uploadVolume(ref, source, sizeBytes, call),
    uploadPart: (ref, source, part, call) => of(ref.pool).uploadPart(ref, source, part, call),
    copyVolume: (spec, source, call) => of(spec.pool).copyVolume(spec, source, call),
    digestVolume: (ref, sizeBytes, call) => of(ref.pool).digestVolume(ref, sizeBytes, call),
    growVolume: (ref, capacityBytes, call) => of(ref.pool).growVolume(ref, capacityBytes, call),
    deleteVolume: (ref, call) => of(ref.pool).deleteVolume(ref, call),
    listVolumes: (pool, prefix, call) => of(pool).listVolumes(pool, prefix, call),
  };
}

import { type Pool, storagePoolGetXmlDesc } from "../../libvirt-rpc/index.ts";
import { type Call, type DomainSpec, HypervisorError, type VolumeRef } from "../hypervisor.ts";
import { consoleLogName } from "./console-log-parts.ts";
import type { DiskSource, ResolvedPaths } from "./domain-xml.ts";
import { isNotFound } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import { isDirectoryPool, type PoolFacts, parsePool } from "./parse-pool.ts";
import { findPool, noSuchVolume, readVolume, volumeIn } from "./pool-lookup.ts";

/**
 * Finds where a spec's volumes are on the host. One that is not in its directory yet has its place there already: it
 * is missed when the domain starts.
 * @throws HypervisorError `invalid-spec` for a pool that is not there, or a volume without a place in the file system
 */
export async function resolvePaths(lanes: Lanes, spec: DomainSpec, call: Call): Promise<ResolvedPaths> {
  const boot = spec.boot.kind === "kernel" ? spec.boot : { kernel: null, initrd: null };
  try {
    const [disks, kernel, initrd, consoleLog] = await Promise.all([
      Promise.all(
        spec.disks.map(async (disk) => [disk.name, await sourceOf(lanes, disk.volume, call)] as const),
      ),
      filePath(lanes, boot.kernel, call),
      filePath(lanes, boot.initrd, call),
      consoleLogPath(lanes, spec, call),
    ]);
    return { disks: new Map(disks), kernel, initrd, consoleLog };
  } catch (error) {
    if (!(error instanceof HypervisorError) || !isNotFound(error)) throw error;
    throw new HypervisorError("invalid-spec", error.message, { cause: error });
  }
}

async function sourceOf(lanes: Lanes, ref: VolumeRef, call: Call): Promise<DiskSource> {
  const pool = await findPool(lanes, ref.pool, call);
  const volume = await volumeIn(lanes, pool, ref.name, call);
  const found = volume === null ? null : await readVolume(lanes, volume, call);
  if (found === null) return await placeOf(lanes, pool, ref, call);
  const { type, path } = found;
  if (type === "file" || type === "block") return { type, path };
  throw new HypervisorError(
    "invalid-spec",
    `volume '${ref.name}' in pool '${ref.pool}' is of type ${type}: only files and block devices can be disks`,
  );
}

async function placeOf(lanes: Lanes, pool: Pool, ref: VolumeRef, call: Call): Promise<DiskSource> {
  const facts = await readPool(lanes, pool, call);
  if (!isDirectoryPool(facts)) throw noSuchVolume(ref);
  return { type: "file", path: `${facts.path}/${ref.name}` };
}

async function filePath(lanes: Lanes, ref: VolumeRef | null, call: Call): Promise<string | null> {
  return ref === null ? null : (await sourceOf(lanes, ref, call)).path;
}

async function consoleLogPath(lanes: Lanes, spec: DomainSpec, call: Call): Promise<string> {
  const pool = await findPool(lanes, spec.consolePool, call);
  const facts = await readPool(lanes, pool, call);
  if (isDirectoryPool(facts)) return `${facts.path}/${consoleLogName(spec.uuid)}`;
  throw new HypervisorError(
    "invalid-spec",
    `pool '${facts.name}' of type ${facts.type} has no directory for a console log: choose one of type dir`,
  );
}

async function readPool(lanes: Lanes, pool: Pool, call: Call): Promise<PoolFacts> {
  return parsePool((await lanes.read(storagePoolGetXmlDesc, { pool, flags: 0 }, call)).xml);
}

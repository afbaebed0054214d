import { type Pool, storagePoolGetXmlDesc } from "../../libvirt-rpc/index.ts";
import { type Call, type DomainSpec, HypervisorError, type VolumeRef } from "../hypervisor.ts";
import { consoleLogName } from "./console-log-parts.ts";
import type { DiskSource, ResolvedPaths } from "./domain-xml.ts";
import { isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { isDirectoryPool, type PoolFacts, parsePool } from "./parse-pool.ts";
import { findPool, noSuchVolume, readVolume, volumeIn } from "./pool-lookup.ts";

/**
 * Finds where a spec's volumes are on the host. One that is not in its directory yet has its place there already: it
 * is missed when the domain starts.
 * @throws HypervisorError `invalid-spec` for a pool that is not there, or a volume without a place in the file system
 */
export async function resolvePaths(calls: HostCalls, spec: DomainSpec, call: Call): Promise<ResolvedPaths> {
  const boot = spec.boot.kind === "kernel" ? spec.boot : { kernel: null, initrd: null };
  try {
    const [disks, kernel, initrd, consoleLog] = await Promise.all([
      Promise.all(
        spec.disks.map(async (disk) => [disk.name, await sourceOf(calls, disk.volume, call)] as const),
      ),
      filePath(calls, boot.kernel, call),
      filePath(calls, boot.initrd, call),
      consoleLogPath(calls, spec, call),
    ]);
    return { disks: new Map(disks), kernel, initrd, consoleLog };
  } catch (error) {
    if (!(error instanceof HypervisorError) || !isNotFound(error)) throw error;
    throw new HypervisorError("invalid-spec", error.message, { cause: error });
  }
}

/** Where a volume is on the host. @throws HypervisorError as resolvePaths does */
export async function sourceOf(calls: HostCalls, ref: VolumeRef, call: Call): Promise<DiskSource> {
  const pool = await findPool(calls, ref.pool, call);
  const volume = await volumeIn(calls, pool, ref.name, call);
  const found = volume === null ? null : await readVolume(calls, volume, call);
  if (found === null) return await placeOf(calls, pool, ref, call);
  const { type, path } = found;
  if (type === "file" || type === "block") return { type, path };
  throw new HypervisorError(
    "invalid-spec",
    `volume '${ref.name}' in pool '${ref.pool}' is of type ${type}: only files and block devices can be disks`,
  );
}

async function placeOf(calls: HostCalls, pool: Pool, ref: VolumeRef, call: Call): Promise<DiskSource> {
  const facts = await readPool(calls, pool, call);
  if (!isDirectoryPool(facts)) throw noSuchVolume(ref);
  return { type: "file", path: `${facts.path}/${ref.name}` };
}

async function filePath(calls: HostCalls, ref: VolumeRef | null, call: Call): Promise<string | null> {
  return ref === null ? null : (await sourceOf(calls, ref, call)).path;
}

async function consoleLogPath(calls: HostCalls, spec: DomainSpec, call: Call): Promise<string> {
  const pool = await findPool(calls, spec.consolePool, call);
  const facts = await readPool(calls, pool, call);
  if (isDirectoryPool(facts)) return `${facts.path}/${consoleLogName(spec.uuid)}`;
  throw new HypervisorError(
    "invalid-spec",
    `pool '${facts.name}' of type ${facts.type} has no directory for a console log: choose one of type dir`,
  );
}

async function readPool(calls: HostCalls, pool: Pool, call: Call): Promise<PoolFacts> {
  return parsePool((await calls.read(storagePoolGetXmlDesc, { pool, flags: 0 }, call)).xml);
}

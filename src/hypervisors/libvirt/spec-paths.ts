import { storagePoolGetXmlDesc } from "../../libvirt-rpc/index.ts";
import { type Call, type DomainSpec, HypervisorError, type VolumeRef } from "../hypervisor.ts";
import { consoleLogName } from "./console-log-parts.ts";
import type { DiskSource, ResolvedPaths } from "./domain-xml.ts";
import { isNotFound } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import { isDirectoryPool, parsePool } from "./parse-pool.ts";
import { findPool, requireVolume } from "./pool-lookup.ts";

/**
 * Finds where a spec's volumes are on the host.
 * @throws HypervisorError `invalid-spec` for a volume or pool that is not there or has no place in the file system
 */
export async function resolvePaths(lanes: Lanes, spec: DomainSpec, call: Call): Promise<ResolvedPaths> {
  const boot = spec.boot.kind === "kernel" ? spec.boot : { kernel: null, initrd: null };
  try {
    const [disks, kernel, initrd, consoleLog] = await Promise.all([
      Promise.all(
        spec.disks.map(async (disk) => [disk.name, await diskSource(lanes, disk.volume, call)] as const),
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

async function diskSource(lanes: Lanes, ref: VolumeRef, call: Call): Promise<DiskSource> {
  const { path, type } = await requireVolume(lanes, ref, call);
  if (type === "file" || type === "block") return { type, path };
  throw new HypervisorError(
    "invalid-spec",
    `volume '${ref.name}' in pool '${ref.pool}' is of type ${type}: only files and block devices can be disks`,
  );
}

async function filePath(lanes: Lanes, ref: VolumeRef | null, call: Call): Promise<string | null> {
  return ref === null ? null : (await requireVolume(lanes, ref, call)).path;
}

async function consoleLogPath(lanes: Lanes, spec: DomainSpec, call: Call): Promise<string> {
  const pool = await findPool(lanes, spec.consolePool, call);
  const facts = parsePool((await lanes.read(storagePoolGetXmlDesc, { pool, flags: 0 }, call)).xml);
  if (!isDirectoryPool(facts)) {
    throw new HypervisorError(
      "invalid-spec",
      `pool '${facts.name}' of type ${facts.type} has no directory for a console log: choose one of type dir`,
    );
  }
  return `${facts.path}/${consoleLogName(spec.uuid)}`;
}

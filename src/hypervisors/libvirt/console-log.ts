import { buffer } from "node:stream/consumers";
import {
  type Pool,
  storageVolDelete,
  storageVolDownload,
  storageVolGetInfoFlags,
  type Volume,
} from "../../libvirt-rpc/index.ts";
import type { Call, ConsoleLogAbility, DomainRef } from "../hypervisor.ts";
import { consoleLogPartNames, type LogPart, type LogRange, tailRanges } from "./console-log-parts.ts";
import { findOwnDomain } from "./domain-lookup.ts";
import { isNotFound } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import type { HostCalls } from "./lanes.ts";
import { findPool, refreshPool, volumeIn } from "./pool-lookup.ts";

/** virStorageVolInfoFlags: the file's own size, whatever a guest made its first bytes look like. */
const PHYSICAL_SIZE = 1;

/**
 * Serial consoles' logs, read and removed as files of a pool, so that it works on a remote host. A pool knows a file
 * only once it was read anew, which takes longer the more volumes there are: it is done only when the log is new to
 * us or was turned over.
 */
export function consoleLogAbility(host: HostContext): ConsoleLogAbility {
  const lastSizes = new Map<string, number>();
  return {
    readConsoleLog: async ({ uuid, pool: poolName }, maxBytes, call) => {
      const pool = await findPool(host.calls, poolName, call);
      const known = await findParts(host.calls, pool, uuid, maxBytes, call);
      const parts = isComplete(known, maxBytes, lastSizes.get(uuid))
        ? known
        : await findPartsAnew(host.calls, pool, uuid, maxBytes, call);
      lastSizes.set(uuid, parts[0]?.sizeBytes ?? 0);
      return await readRanges(host.calls, tailRanges(parts, maxBytes), call);
    },
    deleteConsoleLog: async (domain, call) => {
      lastSizes.delete(domain.uuid);
      await deleteParts(host, domain, call);
    },
  };
}

type Part = LogPart<Volume>;

/** A log that became shorter since it was last read was turned over: there is a part that the pool does not know. */
function isComplete(known: readonly Part[], maxBytes: number, lastSize: number | undefined): boolean {
  const current = known[0];
  if (current === undefined) return false;
  return current.sizeBytes >= maxBytes || (lastSize !== undefined && current.sizeBytes >= lastSize);
}

async function findPartsAnew(
  calls: HostCalls,
  pool: Pool,
  uuid: string,
  maxBytes: number,
  call: Call,
): Promise<readonly Part[]> {
  await refreshPool(calls, pool, call);
  return await findParts(calls, pool, uuid, maxBytes, call);
}

/** The parts that the pool knows, the newest first, as many as it takes to have `maxBytes`. */
async function findParts(
  calls: HostCalls,
  pool: Pool,
  uuid: string,
  maxBytes: number,
  call: Call,
): Promise<readonly Part[]> {
  const parts: Part[] = [];
  let total = 0;
  for (const name of consoleLogPartNames(uuid)) {
    if (total >= maxBytes) break;
    const source = await volumeIn(calls, pool, name, call);
    const sizeBytes = source === null ? null : await physicalSize(calls, source, call);
    if (source === null || sizeBytes === null) break;
    parts.push({ source, sizeBytes });
    total += sizeBytes;
  }
  return parts;
}

/** Null when the file is gone, though the pool still knows it. */
async function physicalSize(calls: HostCalls, volume: Volume, call: Call): Promise<number | null> {
  try {
    const info = await calls.read(storageVolGetInfoFlags, { volume, flags: PHYSICAL_SIZE }, call);
    return Number(info.allocation);
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

async function readRanges(
  calls: HostCalls,
  ranges: readonly LogRange<Volume>[],
  call: Call,
): Promise<Uint8Array> {
  const { signal, timeoutMs } = call;
  if (ranges.length === 0) return new Uint8Array(0);
  return await calls.stream(call, async (connection) => {
    const pieces: Uint8Array[] = [];
    for (const { source: volume, offset, length } of ranges) {
      const range = { volume, offset: BigInt(offset), length: BigInt(length), flags: 0 };
      pieces.push(await buffer(connection.download(storageVolDownload, range, { signal, timeoutMs })));
    }
    return Buffer.concat(pieces);
  });
}

/** The domain is often removed before its log: the log's name says by itself whose it is. */
async function deleteParts(
  host: HostContext,
  { uuid, pool: poolName }: DomainRef,
  call: Call,
): Promise<void> {
  await unlessNotFound(() => findOwnDomain(host, uuid, host.target.installationId, call));
  const pool = await findPool(host.calls, poolName, call);
  await refreshPool(host.calls, pool, call);
  for (const name of consoleLogPartNames(uuid)) {
    const volume = await volumeIn(host.calls, pool, name, call);
    if (volume === null) return;
    await unlessNotFound(() => host.calls.change(storageVolDelete, { volume, flags: 0 }, call));
  }
}

async function unlessNotFound(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

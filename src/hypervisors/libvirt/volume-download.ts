import { whenClosed } from "../../lib/when-closed.ts";
import {
  type LibvirtConnection,
  storageVolDownload,
  storageVolGetInfoFlags,
} from "../../libvirt-rpc/index.ts";
import type { Call, VolumeDownload, VolumeRef } from "../hypervisor.ts";
import { toHypervisorError } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { findVolume, noSuchVolume } from "./pool-lookup.ts";
import type { OpenConnection } from "./side-connections.ts";

/** virStorageVolInfoFlags: the file's own size, whatever its first bytes say. */
const PHYSICAL_SIZE = 1;

/** Opens a volume's file for reading, on a connection of its own, which ends with it. */
export async function downloadVolume(
  calls: HostCalls,
  open: OpenConnection,
  ref: VolumeRef,
  call: Call,
): Promise<VolumeDownload> {
  const volume = await findVolume(calls, ref, call);
  if (volume === null) throw noSuchVolume(ref);
  const { allocation } = await calls.read(storageVolGetInfoFlags, { volume, flags: PHYSICAL_SIZE }, call);
  let connection: LibvirtConnection | null = null;
  try {
    connection = await open(call.signal, call.timeoutMs);
    const range = { volume, offset: 0n, length: 0n, flags: 0 };
    // The call's signal is for the opening: the stream goes on for as long as it takes.
    const content = connection.download(storageVolDownload, range, { timeoutMs: call.timeoutMs });
    // It may fail while nobody listens yet; its end tells whoever has it then.
    content.on("error", () => undefined);
    const own = connection;
    whenClosed(content, () => {
      void own.close();
    });
    await content.reply;
    return { sizeBytes: Number(allocation), content };
  } catch (error) {
    await connection?.close();
    throw toHypervisorError(error, call.signal);
  }
}

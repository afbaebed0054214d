import type { Sql } from "../../db/transaction.ts";
import type { HostStreams } from "../../hosts/host-reader.ts";
import type { VolumeDownload } from "../../hypervisors/hypervisor.ts";
import { copyOfVolume } from "../../image-cache/host-image-store.ts";
import { DroverError } from "../../lib/errors.ts";
import { type VolumeDetails, volumeLabel } from "../../volumes/volume-record.ts";
import type { VmPower } from "../vm-record.ts";
import { getVm } from "../vm-store.ts";

/** Opens the content of a volume. Throws DroverError `invalid_state`, `capability_unsupported`, `host_unreachable`. */
export type VolumeDownloads = (volume: VolumeDetails, signal: AbortSignal) => Promise<VolumeDownload>;

/** While these may write to their disks nobody gets a whole picture of one. */
const MAY_WRITE: ReadonlySet<VmPower> = new Set(["running", "paused", "unknown"]);

export function createVolumeDownloads(db: Sql, stream: HostStreams): VolumeDownloads {
  return async (volume, signal) => {
    await requireQuiet(db, volume);
    const { hostId, hostName, pool, name } = volume;
    let sizeBytes = 0;
    const content = await stream(hostId, signal, async (host, call) => {
      if (host.downloadVolume === undefined)
        throw new DroverError(
          "capability_unsupported",
          `Host "${hostName}" does not give volumes' content out.`,
        );
      const download = await host.downloadVolume({ pool, name }, call);
      sizeBytes = download.sizeBytes;
      return download.content;
    });
    return { sizeBytes, content };
  };
}

async function requireQuiet(db: Sql, volume: VolumeDetails): Promise<void> {
  const { state, role, vm } = volume;
  const label = volumeLabel(volume);
  if (role === "seed")
    throw new DroverError(
      "invalid_state",
      `The volume ${label} is a seed: it may hold secrets and is not given out.`,
    );
  if (state !== "ready") throw new DroverError("invalid_state", `The volume ${label} is not ready.`);
  if ((await copyOfVolume(db, volume.id)) !== null) {
    const message = `The volume ${label} holds only what differs from the host's copy of its image: by itself it is not whole.`;
    throw new DroverError("invalid_state", message);
  }
  const owner = vm === null ? null : await getVm(db, vm.id);
  if (owner === null || !MAY_WRITE.has(owner.power)) return;
  const message = `VM "${owner.name}" is ${owner.power} and may write to the volume ${label}: stop it first, or detach the disk.`;
  throw new DroverError("invalid_state", message);
}

import {
  type HostConnection,
  HypervisorError,
  type VolumeAbility,
  type VolumeSpec,
} from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { HostId, ImageId } from "../lib/ids.ts";
import { GIB } from "../lib/units.ts";
import type { StepContext } from "../operations/operation-kind.ts";
import { poolRoom } from "./volume-store.ts";

/** How volumes on hosts are made and filled by steps. */

/** What a volume is filled with. */
interface Content {
  readonly sizeBytes: number;
  readonly content: AsyncIterable<Uint8Array>;
}

/** Where the contents of images are read. */
export interface VolumeContents {
  open(imageId: ImageId): Promise<Content>;
}

// A day is enough for the largest image over the slowest line that anyone would wait for.
export const FILL_LIMIT_SECONDS = 86_400;
const ANSWER_LIMIT_MS = 120_000;

/** Throws HypervisorError `unsupported`. */
export function volumesOfHost(host: HostConnection | null): VolumeAbility {
  if (host?.volumes === undefined) throw new HypervisorError("unsupported", "the host cannot make volumes");
  return host.volumes;
}

/**
 * Makes the volume where it is not there, fills it from the image, where there is one, and grows it to its capacity. Run
 * again, it begins at the beginning. Throws DroverError `storage_full` with the pool and its sizes.
 */
export async function makeVolume<Input>(
  context: StepContext<Input>,
  contents: VolumeContents,
  volume: VolumeSpec & { readonly hostId: HostId },
  imageId: ImageId | null,
): Promise<void> {
  const ability = volumesOfHost(context.host);
  // The step may last as long as the content needs; a host that is silent for so long does not answer any more.
  const call = { ...context.call, timeoutMs: ANSWER_LIMIT_MS };
  const { pool, name, format, capacityBytes } = volume;
  try {
    const source = imageId === null ? null : await contents.open(imageId);
    await ability.createVolume({ pool, name, format, capacityBytes }, call);
    if (source === null) return;
    const content = counted(source.content, (sent) => {
      context.progress(sent, source.sizeBytes, "bytes");
    });
    await ability.uploadVolume({ pool, name }, content, source.sizeBytes, call);
    await ability.growVolume({ pool, name }, capacityBytes, call);
  } catch (error) {
    throw await toldFull(context, volume, error);
  }
}

/** An error of a pool that is full, with the pool's name and sizes as they were last seen. Others stay as they are. */
export async function toldFull<Input>(
  context: StepContext<Input>,
  { hostId, pool, capacityBytes }: Pick<VolumeSpec, "pool" | "capacityBytes"> & { readonly hostId: HostId },
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof HypervisorError) || error.reason !== "storage-full") return error;
  const room = await context.read((db) => poolRoom(db, hostId, pool));
  const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;
  const sizes =
    room === null
      ? ""
      : ` It had ${gib(room.availableBytes)} of ${gib(room.capacityBytes)} free when last seen.`;
  return new DroverError(
    "storage_full",
    `Pool "${pool}" of host "${room?.host ?? hostId}" has no room for a volume of ${gib(capacityBytes)}.${sizes} Free room there, or choose another pool.`,
    {
      details: {
        pool,
        neededBytes: capacityBytes,
        ...(room === null ? {} : { availableBytes: room.availableBytes, poolBytes: room.capacityBytes }),
      },
      cause: error,
    },
  );
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  onSent: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let sent = 0;
  for await (const chunk of source) {
    yield chunk;
    sent += chunk.byteLength;
    onSent(sent);
  }
}

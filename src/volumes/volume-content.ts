import { z } from "zod";
import { HypervisorError, type VolumeAbility } from "../hypervisors/hypervisor.ts";
import { copyOfVolume, releasedCopies } from "../image-cache/host-image-store.ts";
import type { ImageCacheDeps } from "../image-cache/image-cache.ts";
import type { ImageContents } from "../images/image-content.ts";
import { DroverError } from "../lib/errors.ts";
import type { ImageId, VolumeId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";
import { GIB } from "../lib/units.ts";
import type { StepContext, StepWrites } from "../operations/operation-kind.ts";
import { makeFromCopy } from "./volume-from-copy.ts";
import { holdsDisk, type VolumeRecord } from "./volume-record.ts";
import { poolRoom } from "./volume-store.ts";

/** How volumes on hosts are made and filled by steps. */

export interface VolumeMakingDeps {
  readonly images: ImageContents;
  /** Asked when a step runs: the registry of kinds holds the steps' own. */
  readonly cache: () => ImageCacheDeps;
}

/** What a volume is filled with. */
export interface VolumeContent {
  readonly sizeBytes: number;
  readonly content: AsyncIterable<Uint8Array>;
}

// A day is enough for the largest image over the slowest line that anyone would wait for.
export const FILL_LIMIT_SECONDS = 86_400;
/** A step may last as long as the content needs; a host that is silent for so long does not answer any more. */
const ANSWER_LIMIT_MS = 120_000;

/** Throws HypervisorError `unsupported`. */
export function volumesOfHost(host: StepContext<unknown>["host"]): VolumeAbility {
  if (host?.volumes === undefined) throw new HypervisorError("unsupported", "the host cannot make volumes");
  return host.volumes;
}

/**
 * Makes a volume of its image, of the host's copy of that where there is to be one; or of `content`; or empty. Run again,
 * it begins at the beginning. Returns whether it was made of a copy that it needs no more. Throws DroverError
 * `storage_full` with the pool and its sizes, and as `makeFromCopy`.
 */
export async function makeVolume<Input>(
  context: StepContext<Input>,
  { images, cache }: VolumeMakingDeps,
  volume: VolumeRecord,
  imageId: ImageId | null,
  content: VolumeContent | null = null,
): Promise<boolean> {
  const ability = volumesOfHost(context.host);
  const copy = imageId === null ? null : await context.read((db) => copyOfVolume(db, volume.id));
  try {
    if (copy !== null) return await makeFromCopy(context, cache(), ability, volume, copy);
    const source = imageId === null ? content : await openImage(images, volume, imageId, context.call.signal);
    await fill(context, ability, volume, source);
    return false;
  } catch (error) {
    throw await toldFull(context, volume, error);
  }
}

const Made = z.object({ complete: z.array(z.string()) });

/** What a step says that made volumes; `complete` of them were made of copies that they need no more. */
export function madeVolumes(complete: readonly VolumeId[]): JsonObject {
  return { complete: [...complete] };
}

/** What is recorded with such a step: those copies are free. */
export function freedByMaking(made: JsonObject | undefined): StepWrites {
  const { complete } = Made.parse(made);
  return { parts: complete.length === 0 ? [] : [releasedCopies(complete)], events: [] };
}

/** A disk that is no file has what the guest sees, whatever the format of the image is. */
async function openImage(
  images: ImageContents,
  { role, format }: VolumeRecord,
  imageId: ImageId,
  signal: AbortSignal,
): Promise<VolumeContent> {
  return format === "raw" && holdsDisk(role)
    ? await images.openRaw(imageId, signal)
    : await images.open(imageId);
}

async function fill<Input>(
  context: StepContext<Input>,
  ability: VolumeAbility,
  { pool, name, role, format, capacityBytes }: VolumeRecord,
  source: VolumeContent | null,
): Promise<void> {
  const call = { ...context.call, timeoutMs: ANSWER_LIMIT_MS };
  await ability.createVolume({ pool, name, format, capacityBytes }, call);
  if (source === null) return;
  const content = counted(source.content, (sent) => {
    context.progress(sent, source.sizeBytes, "bytes");
  });
  await ability.uploadVolume({ pool, name }, content, source.sizeBytes, call);
  if (holdsDisk(role)) await ability.growVolume({ pool, name }, capacityBytes, call);
}

/** An error of a pool that is full, with the pool's name and sizes as they were last seen. Others stay as they are. */
export async function toldFull<Input>(
  context: StepContext<Input>,
  { hostId, pool, capacityBytes }: VolumeRecord,
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

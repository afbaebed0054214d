import type { Call, VolumeAbility } from "../hypervisors/hypervisor.ts";
import { HypervisorError } from "../hypervisors/hypervisor.ts";
import type { HostImage } from "../image-cache/host-image.ts";
import { setMissing } from "../image-cache/host-image-store.ts";
import { bringCopies, type ImageCacheDeps } from "../image-cache/image-cache.ts";
import { DroverError } from "../lib/errors.ts";
import { errorOf } from "../operations/operation-finish.ts";
import type { StepContext } from "../operations/operation-kind.ts";
import { holdsDisk, type VolumeRecord } from "./volume-record.ts";

/** What a volume is made of another one of the host by: as long as its content takes. */
const COPY_LIMIT_MS = 4 * 3_600_000;
/** What moves no content is answered by then. */
const ANSWER_LIMIT_MS = 120_000;

/**
 * Makes a volume of the host's copy of its image. Returns whether it is complete by itself, so that the copy may go. Throws
 * DroverError `unavailable` where the copy is still to come: the step is then begun again soon; and why it does not come.
 */
export async function makeFromCopy<Input>(
  context: StepContext<Input>,
  cache: ImageCacheDeps,
  ability: VolumeAbility,
  volume: VolumeRecord,
  copy: HostImage,
): Promise<boolean> {
  if (copy.state !== "ready") throw await notReady(context, cache, copy);
  const { pool, name, format, capacityBytes } = volume;
  const spec = { pool, name, format, capacityBytes };
  const call: Call = { ...context.call, timeoutMs: ANSWER_LIMIT_MS };
  const base = { pool, name: copy.name, format: copy.format };
  const { overlayVolume } = ability;
  const isOverlay = holdsDisk(volume.role) && format === "qcow2" && overlayVolume !== undefined;
  try {
    if (isOverlay) await overlayVolume.call(ability, spec, base, call);
    else await ability.copyVolume(spec, base, { ...call, timeoutMs: COPY_LIMIT_MS });
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.reason !== "not-found") throw error;
    if ((await ability.observeVolume(base, call)) !== null) throw error;
    await context.transaction((tx) => setMissing(tx, copy.id));
    throw await notReady(context, cache, { ...copy, state: "absent", error: null });
  }
  return !isOverlay;
}

/**
 * What was to bring it has ended before this began. Where it failed, so does this; where it was given up, or the copy has
 * vanished from the host, it is asked for again.
 */
async function notReady<Input>(
  context: StepContext<Input>,
  cache: ImageCacheDeps,
  copy: HostImage,
): Promise<DroverError> {
  if (copy.state === "absent" && copy.error !== null) {
    const { code, message, retry } = copy.error;
    return new DroverError(code, `The image could not be brought to the host: ${message}`, {
      retry: retry === "temporary" ? "never" : retry,
      cause: errorOf(copy.error, new DroverError("internal", message)),
    });
  }
  if (copy.state !== "filling") {
    const { hostId, pool } = copy;
    const request = { projectId: context.operation.projectId, actor: "system", requestId: null };
    await context.transaction((tx) => bringCopies(tx, cache, request, { hostId, pool }, [copy.id]));
  }
  return new DroverError("unavailable", "The image is on its way to the host.");
}

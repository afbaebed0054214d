import { z } from "zod";
import { type Call, HypervisorError, type VolumeAbility } from "../hypervisors/hypervisor.ts";
import type { ImageContents } from "../images/image-content.ts";
import { DroverError, toErrorBody } from "../lib/errors.ts";
import { asId, type HostImageId } from "../lib/ids.ts";
import { MIB } from "../lib/units.ts";
import { type OperationKind, type StepContext, type StepHost, step } from "../operations/operation-kind.ts";
import type { HostImage } from "./host-image.ts";
import {
  deleteEvicted,
  getHostImage,
  hostIdOfHostImage,
  imageWithContent,
  setAbsent,
  setFilled,
  setReady,
} from "./host-image-store.ts";
import { PartedContent } from "./parted-content.ts";

/** Operations on the copies of images on hosts. */

const HostImageInput = z.object({ hostImageId: z.guid().transform((id) => asId<HostImageId>(id)) });
export type HostImageInput = z.output<typeof HostImageInput>;

export interface HostImageKindDeps {
  readonly images: ImageContents;
  /** How much is sent before it counts as arrived; 256 MiB without. */
  readonly partBytes?: number;
}

type Nothing = Record<string, never>;

/** A day is enough for the largest image over the slowest line that anyone would wait for. */
const BRING_LIMIT_SECONDS = 86_400;
/** A host that is silent for so long does not answer any more. */
const ANSWER_LIMIT_MS = 120_000;
/** Until when an unreachable host is waited for; then a later sweep asks again. */
const EVICT_LIMIT_SECONDS = 7 * 86_400;
const PART_BYTES = 256 * MIB;

const hostOfImage: StepHost<HostImageInput> = {
  subquery: ({ hostImageId }) => hostIdOfHostImage(hostImageId),
};

/**
 * Brings an image's content to a pool of a host. Whoever runs it goes on where the last one stopped; taken back, nothing
 * of it is left on the host.
 */
export function bringHostImageKind(deps: HostImageKindDeps): OperationKind<HostImageInput> {
  return {
    name: "hostImage.bring",
    input: HostImageInput,
    deadlineSeconds: BRING_LIMIT_SECONDS,
    steps: [
      step<HostImageInput, Nothing>({
        name: "bring-content",
        host: hostOfImage,
        timeoutSeconds: BRING_LIMIT_SECONDS,
        run: (context) => bringContent(context, deps),
        async undo(context) {
          const copy = await context.read((db) => getHostImage(db, context.operation.input.hostImageId));
          if (copy !== null) await volumesOf(context).deleteVolume(copy, context.call);
        },
      }),
    ],
    // Another one may have brought it meanwhile.
    async admit(tx, { input }) {
      const copy = await getHostImage(tx, input.hostImageId);
      return { kind: copy === null || copy.state === "ready" ? "done" : "run" };
    },
    async onEnd(tx, { id, input }, outcome) {
      if (outcome.state === "succeeded") {
        await setReady(tx, input.hostImageId);
        return;
      }
      const isGivenUp = outcome.state === "cancelled";
      await setAbsent(tx, input.hostImageId, id, isGivenUp ? null : toErrorBody(outcome.error));
    },
  };
}

/** Removes the copy of an image from a pool of a host. */
export const evictHostImageKind: OperationKind<HostImageInput> = {
  name: "hostImage.evict",
  input: HostImageInput,
  deadlineSeconds: EVICT_LIMIT_SECONDS,
  steps: [
    step<HostImageInput, Nothing>({
      name: "delete-copy",
      host: hostOfImage,
      async run(context) {
        const copy = await context.read((db) => getHostImage(db, context.operation.input.hostImageId));
        if (copy !== null) await volumesOf(context).deleteVolume(copy, context.call);
        return undefined;
      },
    }),
  ],
  // Somebody may want it again by now: what is to bring it anew stands behind this, and finds it there.
  async admit(tx, { input }) {
    const copy = await getHostImage(tx, input.hostImageId);
    return { kind: copy?.state === "evicting" ? "run" : "done" };
  },
  async onEnd(tx, { id, input }, outcome) {
    if (outcome.state === "succeeded") await deleteEvicted(tx, input.hostImageId);
    else await setAbsent(tx, input.hostImageId, id, null);
  },
};

function volumesOf({ host }: StepContext<HostImageInput>): VolumeAbility {
  if (host?.volumes !== undefined) return host.volumes;
  throw new HypervisorError("unsupported", "the host cannot make volumes");
}

async function bringContent(
  context: StepContext<HostImageInput>,
  { images, partBytes = PART_BYTES }: HostImageKindDeps,
) {
  const { hostImageId } = context.operation.input;
  const found = await context.read(async (db) => {
    const row = await getHostImage(db, hostImageId);
    return row === null ? null : { row, image: await imageWithContent(db, row.sha256) };
  });
  if (found === null || found.image === null) {
    throw new DroverError("not_found", "The image was deleted before it was brought to the host.");
  }
  const { row: copy, image } = found;
  const opened = await images.open(image.id);
  const sentBytes = await send(context, copy, opened.content, partBytes);
  await verify(context, copy);
  return { sizeBytes: copy.sizeBytes, sentBytes };
}

/** Sends what is missing, and returns how much that was. */
async function send(
  context: StepContext<HostImageInput>,
  copy: HostImage,
  source: AsyncIterable<Uint8Array>,
  partBytes: number,
): Promise<number> {
  const volumes = volumesOf(context);
  const { sizeBytes } = copy;
  const call = answeredSoon(context);
  const from = await beginVolume(context, volumes, copy, call);
  const content = new PartedContent(source, copy.sha256, sizeBytes);
  const { uploadPart = null } = volumes;
  const most = uploadPart === null ? sizeBytes : partBytes;
  try {
    await content.skip(from);
    for (let at = from; at < sizeBytes; ) {
      const part = { offsetBytes: at, sizeBytes: Math.min(most, sizeBytes - at) };
      const bytes = counted(content.part(part.sizeBytes), (sent) => {
        context.progress(part.offsetBytes + sent, sizeBytes, "bytes");
      });
      if (uploadPart === null) await volumes.uploadVolume(copy, bytes, sizeBytes, call);
      else await uploadPart.call(volumes, copy, bytes, part, call);
      at += part.sizeBytes;
      await context.transaction((tx) => setFilled(tx, copy.id, at));
    }
  } finally {
    await content.close();
  }
  return sizeBytes - from;
}

/** Makes the volume, or finds the one that was begun. Returns how much of its content is there. */
async function beginVolume(
  context: StepContext<HostImageInput>,
  volumes: VolumeAbility,
  copy: HostImage,
  call: Call,
): Promise<number> {
  const { pool, name, format, capacityBytes, filledBytes, sizeBytes } = copy;
  const seen = await volumes.observeVolume(copy, call);
  const isKept = volumes.uploadPart !== undefined || filledBytes === sizeBytes;
  if (seen !== null && filledBytes > 0 && isKept) return filledBytes;
  // Recorded first: what is made anew must not count as what was there.
  if (filledBytes > 0) await context.transaction((tx) => setFilled(tx, copy.id, 0));
  if (seen !== null) await volumes.deleteVolume(copy, call);
  await volumes.createVolume({ pool, name, format, capacityBytes }, call);
  return 0;
}

/** Asks a host that can tell for the digest of what is on its disk. */
async function verify(context: StepContext<HostImageInput>, copy: HostImage): Promise<void> {
  const volumes = volumesOf(context);
  const digest = await volumes.digestVolume?.(copy, copy.sizeBytes, context.call);
  if (digest === undefined || digest === copy.sha256) return;
  await context.transaction((tx) => setFilled(tx, copy.id, 0));
  throw new HypervisorError(
    "failed",
    `the content of volume '${copy.name}' has the SHA-256 ${digest} on the host: it was changed or damaged on its way`,
  );
}

/** The step may last as long as the content needs. */
function answeredSoon({ call }: StepContext<HostImageInput>): Call {
  return { ...call, timeoutMs: ANSWER_LIMIT_MS };
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

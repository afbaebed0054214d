import { z } from "zod";
import { appendEvent } from "../events/event-store.ts";
import { releaseCopyOf } from "../image-cache/host-image-store.ts";
import { DroverError, toErrorBody } from "../lib/errors.ts";
import { asId, type ImageId, type VolumeId } from "../lib/ids.ts";
import { type OperationKind, type StepHost, step } from "../operations/operation-kind.ts";
import {
  FILL_LIMIT_SECONDS,
  freedByMaking,
  madeVolumes,
  makeVolume,
  type VolumeMakingDeps,
  volumesOfHost,
} from "./volume-content.ts";
import { volumeEvent } from "./volume-events.ts";
import { volumeLabel } from "./volume-record.ts";
import { deleteVolumeRow, getVolume, hostIdOfVolume, lockVolume, setVolumeState } from "./volume-store.ts";

const VolumeInput = z.object({ volumeId: z.guid().transform((id) => asId<VolumeId>(id)) });
type VolumeInput = z.output<typeof VolumeInput>;

const DeleteInput = VolumeInput.extend({
  /** Only for as long as nobody cares for it. */
  orphan: z.boolean().default(false),
});
type DeleteInput = z.output<typeof DeleteInput>;

const CreateInput = VolumeInput.extend({
  imageId: z
    .guid()
    .transform((id) => asId<ImageId>(id))
    .nullable(),
});
type CreateInput = z.output<typeof CreateInput>;

const volumeHost: StepHost<VolumeInput> = { subquery: ({ volumeId }) => hostIdOfVolume(volumeId) };

type Nothing = Record<string, never>;

function gone(id: VolumeId): DroverError {
  return new DroverError("not_found", `The volume ${id} does not exist any more.`);
}

/** The operation that makes a volume of its own, empty or from an image. */
export function volumeCreateKind(deps: VolumeMakingDeps): OperationKind<CreateInput> {
  return {
    name: "volume.create",
    input: CreateInput,
    deadlineSeconds: FILL_LIMIT_SECONDS,
    steps: [
      step<CreateInput, Nothing>({
        name: "create-volume",
        host: volumeHost,
        timeoutSeconds: FILL_LIMIT_SECONDS,
        async run(context) {
          const { volumeId, imageId } = context.operation.input;
          const volume = await context.read((db) => getVolume(db, volumeId));
          if (volume === null) throw gone(volumeId);
          return madeVolumes((await makeVolume(context, deps, volume, imageId)) ? [volumeId] : []);
        },
        write: (_operation, result) => freedByMaking(result),
        async undo(context) {
          const volume = await context.read((db) => getVolume(db, context.operation.input.volumeId));
          if (volume !== null) await volumesOfHost(context.host).deleteVolume(volume, context.call);
        },
      }),
    ],
    async onEnd(tx, operation, outcome) {
      const volume = await lockVolume(tx, operation.input.volumeId);
      if (volume === null) return;
      const isMade = outcome.state === "succeeded";
      const error = isMade ? null : toErrorBody(outcome.error);
      await setVolumeState(tx, volume.id, isMade ? "ready" : "failed", error);
      if (!isMade) await releaseCopyOf(tx, volume.id);
      const data = error === null ? {} : { error: error.code };
      await appendEvent(
        tx,
        volumeEvent(isMade ? "volume.ready" : "volume.failed", volume, operation.id, data),
      );
    },
  };
}

/** The operation that deletes a volume that no VM has. Begun, it is finished. */
export const volumeDeleteKind: OperationKind<DeleteInput> = {
  name: "volume.delete",
  input: DeleteInput,
  deadlineSeconds: 86_400,
  forwardOnly: true,
  steps: [
    // From here on nobody can take it into use.
    step<DeleteInput, Nothing>({
      name: "give-up-volume",
      host: volumeHost,
      run: () => Promise.resolve(undefined),
      record: (tx, { input }) => setVolumeState(tx, input.volumeId, "deleting", null),
    }),
    step<DeleteInput, Nothing>({
      name: "delete-volume",
      host: volumeHost,
      timeoutSeconds: 600,
      async run(context) {
        const volume = await context.read((db) => getVolume(db, context.operation.input.volumeId));
        if (volume !== null) await volumesOfHost(context.host).deleteVolume(volume, context.call);
        return undefined;
      },
    }),
  ],
  async admit(tx, operation) {
    const volume = await getVolume(tx, operation.input.volumeId);
    if (volume === null || (operation.input.orphan && volume.orphanSince === null)) return { kind: "done" };
    if (volume.vm === null) return { kind: "run" };
    const message = `The volume ${volumeLabel(volume)} was attached to VM "${volume.vm.name}" meanwhile: detach it first.`;
    return { kind: "refuse", error: new DroverError("in_use", message) };
  },
  async onEnd(tx, operation, outcome) {
    const volume = await lockVolume(tx, operation.input.volumeId);
    if (volume === null) return;
    // One that is as it was found was left alone.
    if (outcome.state === "succeeded" && volume.state === "ready") return;
    if (outcome.state === "succeeded") {
      await deleteVolumeRow(tx, volume.id);
      await appendEvent(tx, volumeEvent("volume.deleted", volume, operation.id));
    } else if (volume.state === "deleting") {
      await setVolumeState(tx, volume.id, "deleting", toErrorBody(outcome.error));
    }
  },
};

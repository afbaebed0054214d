import { z } from "zod";
import { appendEvent } from "../../events/event-store.ts";
import { HypervisorError } from "../../hypervisors/hypervisor.ts";
import { releaseCopyOf } from "../../image-cache/host-image-store.ts";
import { DroverError, toErrorBody } from "../../lib/errors.ts";
import { asId, type ImageId } from "../../lib/ids.ts";
import {
  type Admission,
  type OperationKind,
  type StepContext,
  step,
} from "../../operations/operation-kind.ts";
import {
  FILL_LIMIT_SECONDS,
  freedByMaking,
  madeVolumes,
  makeVolume,
  type VolumeMakingDeps,
  volumesOfHost,
} from "../../volumes/volume-content.ts";
import { volumeEvent } from "../../volumes/volume-events.ts";
import { type VolumeDetails, volumeLabel } from "../../volumes/volume-record.ts";
import { deleteVolumeRow, getVolume, lockVolume, setVolumeState } from "../../volumes/volume-store.ts";
import { keepOutcome } from "../vm-action.ts";
import type { VmDiskSpec, VmRecord } from "../vm-record.ts";
import { answeredSoon, vmHost } from "../vm-steps.ts";
import { getVm, lockVm } from "../vm-store.ts";
import {
  changed,
  DiskInput,
  definedIn,
  defineWith,
  domainDisk,
  hotplugOf,
  isRunning,
  observeForDisks,
  volumeOf,
} from "./disk-steps.ts";
import { recordAttached } from "./disk-store.ts";

const AttachInput = DiskInput.extend({
  /** Whether the volume is made for it. */
  isNew: z.boolean(),
  imageId: z
    .guid()
    .transform((id) => asId<ImageId>(id))
    .nullable(),
});
type AttachInput = z.output<typeof AttachInput>;

type Nothing = Record<string, never>;

/** The operation that gives a VM one more disk: to the guest while it runs, else to its definition. */
export function attachDiskKind(deps: VolumeMakingDeps): OperationKind<AttachInput> {
  return {
    name: "vm.attachDisk",
    input: AttachInput,
    deadlineSeconds: FILL_LIMIT_SECONDS,
    steps: [
      step<AttachInput, Nothing>({
        name: "create-volume",
        host: vmHost,
        skip: ({ isNew }) => !isNew,
        timeoutSeconds: FILL_LIMIT_SECONDS,
        async run(context) {
          const volume = await context.read((db) => getVolume(db, context.operation.input.volumeId));
          if (volume === null) throw new DroverError("not_found", "The new volume is gone.");
          const isComplete = await makeVolume(context, deps, volume, context.operation.input.imageId);
          return madeVolumes(isComplete ? [volume.id] : []);
        },
        write: (_operation, result) => freedByMaking(result),
        async undo(context) {
          const volume = await context.read((db) => getVolume(db, context.operation.input.volumeId));
          if (volume !== null) await volumesOfHost(context.host).deleteVolume(volume, context.call);
        },
      }),
      step<AttachInput, Nothing>({
        name: "attach-disk",
        host: vmHost,
        async run(context) {
          const disk = domainDisk(context.operation.input.disk, await volumeOf(context));
          if (!isRunning(await observeForDisks(context)))
            return changed(await defineWith(context, (disks) => [...disks, disk]));
          await hotplugOf(context).attachDisk(context.operation.input.vmId, disk, answeredSoon(context).call);
          return changed(null);
        },
        async record(tx, operation, result) {
          const { vmId, volumeId, disk } = operation.input;
          const volume = await lockVolume(tx, volumeId);
          const vm = await lockVm(tx, vmId);
          if (volume === null || vm === null)
            throw new DroverError("not_found", "The VM or the volume is gone.");
          const spec = diskSpecOf(disk, volume, operation.input.isNew);
          await recordAttached(tx, vmId, volumeId, spec, definedIn(result));
          const data = { vm: vm.name, disk };
          await appendEvent(tx, volumeEvent("volume.attached", volume, operation.id, data));
        },
        undo: takeBack,
      }),
    ],
    async admit(tx, { input }) {
      const vm = await getVm(tx, input.vmId);
      const volume = await getVolume(tx, input.volumeId);
      const error = refusal(vm, volume, input);
      return error === null ? ({ kind: "run" } satisfies Admission) : { kind: "refuse", error };
    },
    async onEnd(tx, operation, outcome) {
      const { vmId, volumeId, isNew } = operation.input;
      const vm = await lockVm(tx, vmId);
      if (vm !== null) await keepOutcome(tx, vm, operation, outcome);
      if (outcome.state === "succeeded" || !isNew) return;
      const volume = await lockVolume(tx, volumeId);
      if (volume === null) return;
      // Nobody knows of it yet, and there is nothing on the host.
      if (outcome.undone) await deleteVolumeRow(tx, volumeId);
      else {
        await setVolumeState(tx, volumeId, "failed", toErrorBody(outcome.error));
        await releaseCopyOf(tx, volumeId);
      }
    },
  };
}

/** What the spec says of a disk that came later. */
function diskSpecOf(name: string, volume: VolumeDetails, isNew: boolean): VmDiskSpec {
  if (!isNew) return { name, volume: volume.ownName ?? volume.id };
  const { source, deletePolicy } = volume;
  const image = source.kind === "image" ? { image: source.image } : {};
  return { name, ...image, sizeGib: Math.ceil(volume.capacityBytes / 2 ** 30), deletePolicy };
}

/** Why the disk cannot be attached now; null: it can. */
function refusal(
  vm: VmRecord | null,
  volume: VolumeDetails | null,
  { disk, isNew }: AttachInput,
): DroverError | null {
  if (vm === null || volume === null)
    return new DroverError("not_found", "The VM or the volume does not exist any more.");
  if (vm.phase !== "ready")
    return new DroverError("invalid_state", `VM "${vm.name}" is ${vm.phase}: its disks cannot be changed.`);
  if (vm.spec.disks.some(({ name }) => name === disk))
    return new DroverError(
      "name_taken",
      `VM "${vm.name}" has a disk "${disk}" already. Choose another name.`,
    );
  return isNew ? null : notAttachable(volume);
}

/** Why a volume that is there cannot be attached; null: it can. */
export function notAttachable(volume: VolumeDetails): DroverError | null {
  const { vm, state } = volume;
  if (vm !== null) {
    const message = `The volume ${volumeLabel(volume)} belongs to VM "${vm.name}" already.`;
    return new DroverError("in_use", message, { details: { vm: vm.name } });
  }
  if (state === "ready") return null;
  const shown = state === "planned" ? "still being made" : state;
  return new DroverError(
    "invalid_state",
    `The volume ${volumeLabel(volume)} is ${shown}: it cannot be attached.`,
  );
}

/** Takes the disk from the guest and its definition again: nobody has it yet, by the inventory. */
async function takeBack(context: StepContext<AttachInput>): Promise<void> {
  const { vmId, disk } = context.operation.input;
  const volume = await context.read((db) => getVolume(db, context.operation.input.volumeId));
  if (volume === null) return;
  const domain = await observeForDisks(context);
  // No domain, no disk.
  if (domain === null) return;
  if (!isRunning(domain)) {
    await defineWith(context, (disks) => disks);
    return;
  }
  const isGone = await hotplugOf(context).detachDisk(
    vmId,
    domainDisk(disk, volume),
    answeredSoon(context).call,
  );
  if (!isGone) throw new HypervisorError("busy", `the guest does not let go of the disk "${disk}" again`);
}

import { z } from "zod";
import { appendEvent } from "../../events/event-store.ts";
import { DroverError } from "../../lib/errors.ts";
import { asId, type VmId, type VolumeId } from "../../lib/ids.ts";
import {
  type OperationKind,
  type StepContext,
  type StepHost,
  step,
} from "../../operations/operation-kind.ts";
import { toldFull, volumesOfHost } from "../../volumes/volume-content.ts";
import { volumeEvent } from "../../volumes/volume-events.ts";
import { type VolumeDetails, volumeLabel } from "../../volumes/volume-record.ts";
import { getVolume, hostIdOfVolume, lockVolume } from "../../volumes/volume-store.ts";
import { keepOutcome } from "../vm-action.ts";
import { lockVm } from "../vm-store.ts";
import { domainDisk, hotplugOf, isRunning, observeForDisks } from "./disk-steps.ts";
import { recordResized } from "./disk-store.ts";

const ResizeInput = z.object({
  volumeId: z.guid().transform((id) => asId<VolumeId>(id)),
  /** The VM that has it, and whose lane is held too. */
  vmId: z
    .guid()
    .transform((id) => asId<VmId>(id))
    .nullable(),
  capacityBytes: z.number(),
});
type ResizeInput = z.output<typeof ResizeInput>;

type Nothing = Record<string, never>;

const volumeHost: StepHost<ResizeInput> = { subquery: ({ volumeId }) => hostIdOfVolume(volumeId) };

/** The operation that grows a volume, under the guest where one runs with it. */
export const volumeResizeKind: OperationKind<ResizeInput> = {
  name: "volume.resize",
  input: ResizeInput,
  deadlineSeconds: 3_600,
  steps: [
    step<ResizeInput, Nothing>({
      name: "grow-volume",
      host: volumeHost,
      async run(context) {
        const { volumeId, capacityBytes } = context.operation.input;
        const volume = await context.read((db) => getVolume(db, volumeId));
        if (volume === null) throw gone(volumeId);
        try {
          await grow(context, volume);
        } catch (error) {
          throw await toldFull(context, { ...volume, capacityBytes }, error);
        }
        return undefined;
      },
      async record(tx, operation) {
        const { volumeId, capacityBytes } = operation.input;
        const volume = await lockVolume(tx, volumeId);
        if (volume === null) throw gone(volumeId);
        await recordResized(tx, volumeId, capacityBytes);
        await appendEvent(tx, volumeEvent("volume.resized", volume, operation.id, { capacityBytes }));
      },
    }),
  ],
  async admit(tx, { input }) {
    const volume = await getVolume(tx, input.volumeId);
    const error = volume === null ? gone(input.volumeId) : notGrowable(volume, input);
    return error === null ? { kind: "run" } : { kind: "refuse", error };
  },
  async onEnd(tx, operation, outcome) {
    const { vmId } = operation.input;
    const vm = vmId === null ? null : await lockVm(tx, vmId);
    if (vm !== null) await keepOutcome(tx, vm, { ...operation, input: { vmId: vm.id } }, outcome);
  },
};

function gone(id: VolumeId): DroverError {
  return new DroverError("not_found", `The volume ${id} does not exist any more.`);
}

function notGrowable(volume: VolumeDetails, { vmId, capacityBytes }: ResizeInput): DroverError | null {
  const name = volumeLabel(volume);
  if (volume.state !== "ready")
    return new DroverError("invalid_state", `The volume ${name} is not ready: it cannot be resized.`);
  if ((volume.vm?.id ?? null) !== vmId)
    return new DroverError("conflict", `The volume ${name} was attached or detached meanwhile. Ask again.`);
  if (capacityBytes >= volume.capacityBytes) return null;
  return new DroverError("conflict", `The volume ${name} has grown meanwhile, and is never made smaller.`);
}

async function grow(context: StepContext<ResizeInput>, volume: VolumeDetails): Promise<void> {
  const { vmId, volumeId, capacityBytes } = context.operation.input;
  if (vmId !== null) {
    const disk = volume.role.slice("disk:".length);
    const ofVm = { ...context, operation: { ...context.operation, input: { vmId, volumeId, disk } } };
    if (isRunning(await observeForDisks(ofVm))) {
      await hotplugOf(ofVm).growDisk(vmId, domainDisk(disk, volume), capacityBytes, context.call);
      return;
    }
  }
  await volumesOfHost(context.host).growVolume(volume, capacityBytes, context.call);
}

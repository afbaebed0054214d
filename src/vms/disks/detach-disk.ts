import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { appendEvent } from "../../events/event-store.ts";
import { DroverError, toErrorBody } from "../../lib/errors.ts";
import { type OperationKind, type StepContext, step } from "../../operations/operation-kind.ts";
import { volumesOfHost } from "../../volumes/volume-content.ts";
import { volumeEvent } from "../../volumes/volume-events.ts";
import { deleteVolumeRow, getVolume, lockVolume, setVolumeState } from "../../volumes/volume-store.ts";
import { keepOutcome } from "../vm-action.ts";
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
import { recordDetached } from "./disk-store.ts";

const DetachInput = DiskInput.extend({
  timeoutSeconds: z.number(),
  /** Whether the volume goes with the disk. */
  deleteVolume: z.boolean(),
});
type DetachInput = z.output<typeof DetachInput>;

type Nothing = Record<string, never>;

const ASK_EVERY_MS = 1_000;

/**
 * The operation that takes a disk from a VM. A guest that does not let go in its time ends it before anything is changed;
 * from there on it goes forward.
 */
export const detachDiskKind: OperationKind<DetachInput> = {
  name: "vm.detachDisk",
  input: DetachInput,
  deadlineSeconds: ({ timeoutSeconds }) => timeoutSeconds + 3_600,
  forwardOnly: true,
  steps: [
    step<DetachInput, Nothing>({
      name: "detach-disk",
      host: vmHost,
      timeoutSeconds: ({ timeoutSeconds }) => timeoutSeconds + 60,
      async run(context) {
        const { disk } = context.operation.input;
        if (isRunning(await observeForDisks(context))) {
          await letGo(context);
          return changed(null);
        }
        return changed(await defineWith(context, (disks) => disks.filter(({ name }) => name !== disk)));
      },
      async record(tx, operation, result) {
        const { vmId, volumeId, disk, deleteVolume } = operation.input;
        const volume = await lockVolume(tx, volumeId);
        const vm = await lockVm(tx, vmId);
        if (volume === null || vm === null)
          throw new DroverError("not_found", "The VM or the volume is gone.");
        await recordDetached(tx, { vmId, volumeId, disk }, deleteVolume, definedIn(result));
        const data = { vm: vm.name, disk };
        await appendEvent(tx, volumeEvent("volume.detached", volume, operation.id, data));
      },
    }),
    step<DetachInput, Nothing>({
      name: "delete-volume",
      host: vmHost,
      skip: ({ deleteVolume }) => !deleteVolume,
      timeoutSeconds: 600,
      async run(context) {
        await volumesOfHost(context.host).deleteVolume(await volumeOf(context), context.call);
        return undefined;
      },
    }),
  ],
  async admit(tx, { input }) {
    const [vm, volume] = [await getVm(tx, input.vmId), await getVolume(tx, input.volumeId)];
    if (volume === null || vm === null || volume.vm?.id !== input.vmId) return { kind: "done" };
    if (vm.phase === "ready") return { kind: "run" };
    const message = `VM "${vm.name}" is ${vm.phase}: its disks cannot be changed.`;
    return { kind: "refuse", error: new DroverError("invalid_state", message) };
  },
  async onEnd(tx, operation, outcome) {
    const { vmId, volumeId, deleteVolume } = operation.input;
    const vm = await lockVm(tx, vmId);
    if (vm !== null) await keepOutcome(tx, vm, operation, outcome);
    const volume = await lockVolume(tx, volumeId);
    if (!deleteVolume || volume?.state !== "deleting") return;
    if (outcome.state === "succeeded") {
      await deleteVolumeRow(tx, volumeId);
      await appendEvent(tx, volumeEvent("volume.deleted", volume, operation.id));
    } else await setVolumeState(tx, volumeId, "deleting", toErrorBody(outcome.error));
  },
};

/** Asks the guest until it has let go. Throws `guest_did_not_let_go`. */
async function letGo(context: StepContext<DetachInput>): Promise<void> {
  const { vmId, disk, timeoutSeconds } = context.operation.input;
  const hotplug = hotplugOf(context);
  const device = domainDisk(disk, await volumeOf(context));
  const endsAt = performance.now() + timeoutSeconds * 1000;
  while (!(await hotplug.detachDisk(vmId, device, answeredSoon(context).call))) {
    if (performance.now() >= endsAt) {
      throw new DroverError(
        "guest_did_not_let_go",
        `The guest did not let go of disk "${disk}" within ${timeoutSeconds} seconds, and has it still. Unmount it in the guest and try again, or stop the VM first.`,
      );
    }
    await sleep(ASK_EVERY_MS, undefined, { signal: context.signal });
  }
}

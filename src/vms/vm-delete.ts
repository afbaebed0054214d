import { appendEvent } from "../events/event-store.ts";
import type { OperationKind } from "../operations/operation-kind.ts";
import { step } from "../operations/operation-kind.ts";
import { doomVolumes, knownNames } from "../volumes/volume-store.ts";
import { keepOutcome } from "./vm-action.ts";
import { releaseNetworks } from "./vm-network-steps.ts";
import { volumePrefixOf } from "./vm-record.ts";
import { cutPower, gone, hostOf, VmInput, vmHost } from "./vm-steps.ts";
import { deleteVmRows, getVm, getVmWithParts, lockVm } from "./vm-store.ts";

type Nothing = Record<string, never>;

/**
 * The operation that removes a VM with its volumes. It overtakes what is queued, and it only goes forward: a delete
 * half-way is finished, not taken back.
 */
export const vmDeleteKind: OperationKind<VmInput> = {
  name: "vm.delete",
  input: VmInput,
  deadlineSeconds: 86_400,
  forwardOnly: true,
  overtakes: "all",
  steps: [
    step<VmInput, Nothing>({
      name: "force-off",
      host: vmHost,
      async run(context) {
        await cutPower(context);
        return undefined;
      },
    }),
    step<VmInput, Nothing>({
      name: "remove-domain",
      host: vmHost,
      async run(context) {
        await hostOf(context).removeDomain(context.operation.input.vmId, context.call);
        return undefined;
      },
    }),
    step<VmInput, Nothing>({
      name: "release-networks",
      host: vmHost,
      async run(context) {
        await releaseNetworks(context);
        return undefined;
      },
    }),
    step<VmInput, Nothing>({
      name: "delete-volumes",
      host: vmHost,
      timeoutSeconds: 600,
      async run(context) {
        const { vmId } = context.operation.input;
        const host = hostOf(context);
        const found = await context.read((db) => getVmWithParts(db, vmId));
        if (found === null) throw gone(vmId);
        const { vm, installationId } = found;
        const volumes = await context.transaction((tx) => doomVolumes(tx, vmId));
        if (vm.pool !== null && vm.domainName !== null) {
          await host.consoleLog?.deleteConsoleLog(
            { uuid: vmId, name: vm.domainName, pool: vm.pool },
            context.call,
          );
        }
        if (host.volumes === undefined) return undefined;
        for (const volume of volumes) await host.volumes.deleteVolume(volume, context.call);
        // What carries the VM's id and has no row would be nobody's. What it let go of before has one, here or elsewhere.
        for (const pool of new Set(found.volumes.map((volume) => volume.pool))) {
          const left = await host.volumes.listVolumes(
            pool,
            volumePrefixOf(installationId, vmId),
            context.call,
          );
          const known = await context.read((db) =>
            knownNames(
              db,
              left.map(({ name }) => name),
            ),
          );
          for (const volume of left)
            if (!known.has(volume.name)) await host.volumes.deleteVolume(volume, context.call);
        }
        return undefined;
      },
    }),
  ],
  // Two deletes at once: the second finds nothing left to do.
  async admit(tx, operation) {
    return { kind: (await getVm(tx, operation.input.vmId)) === null ? "done" : "run" };
  },
  async onEnd(tx, operation, outcome) {
    const vm = await lockVm(tx, operation.input.vmId);
    if (vm === null) return;
    if (outcome.state !== "succeeded") {
      await keepOutcome(tx, vm, operation, outcome);
      return;
    }
    await deleteVmRows(tx, vm.id);
    await appendEvent(tx, {
      type: "vm.deleted",
      subject: { kind: "vm", id: vm.id, name: vm.name },
      projectId: vm.projectId,
      operationId: operation.id,
      data: {},
    });
  },
};

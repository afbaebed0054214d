import { Readable } from "node:stream";
import { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { releaseCopiesOfVm } from "../image-cache/host-image-store.ts";
import { DroverError } from "../lib/errors.ts";
import type { VolumeId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import {
  type OperationContext,
  type OperationKind,
  type OperationOutcome,
  type StepContext,
  step,
} from "../operations/operation-kind.ts";
import {
  FILL_LIMIT_SECONDS,
  freedByMaking,
  madeVolumes,
  makeVolume,
  type VolumeContent,
  type VolumeMakingDeps,
  volumesOfHost,
} from "../volumes/volume-content.ts";
import { isDiskRole } from "../volumes/volume-record.ts";
import { type VolumeRecord, volumesOf } from "../volumes/volume-store.ts";
import { bringUp } from "./actions/start.ts";
import { openSeed, seedImage } from "./cloud-init/seed.ts";
import { sealedSeedOf } from "./cloud-init/vm-seed-store.ts";
import { keepOutcome } from "./vm-action.ts";
import { prepareNetworks, releaseNetworks } from "./vm-network-steps.ts";
import { appliedWrites } from "./vm-observation-store.ts";
import { SEED_ROLE } from "./vm-record.ts";
import {
  VmInput as Base,
  cutPower,
  gone,
  hostOf,
  isOn,
  look,
  observe,
  observeStep,
  readDomainSpec,
  sizeOf,
  vmHost,
  writeSeen,
} from "./vm-steps.ts";
import { completeVm, getVm, getVmWithParts, lockVm, setPhase } from "./vm-store.ts";

const CreateInput = Base.extend({
  start: z.boolean(),
  /** Whether there is a kernel or a seed to bring to the host. */
  bootFiles: z.boolean(),
  disks: z.boolean(),
  /** Whether it has NICs in networks of the project. */
  networks: z.boolean().default(false),
});
type CreateInput = z.output<typeof CreateInput>;

const Applied = z.object({ generation: z.int(), cpuCount: z.int(), memoryMib: z.int() });

export interface VmCreateDeps extends VolumeMakingDeps {
  /** Opens what cloud-init is told. */
  readonly secretBox: SecretBox;
}

/** The operation that makes a VM real: its volumes, its domain, its start. All of it is undone when it fails. */
export function vmCreateKind(deps: VmCreateDeps): OperationKind<CreateInput> {
  return {
    name: "vm.create",
    input: CreateInput,
    deadlineSeconds: FILL_LIMIT_SECONDS,
    steps: [
      volumeStep(
        "bring-boot-files",
        deps,
        (volume) => !isDisk(volume),
        ({ bootFiles }) => !bootFiles,
      ),
      volumeStep("create-disks", deps, isDisk, ({ disks }) => !disks),
      step<CreateInput, Record<string, never>>({
        name: "prepare-networks",
        host: vmHost,
        skip: ({ networks }) => !networks,
        async run(context) {
          await prepareNetworks(context);
          return undefined;
        },
        undo: (context) => releaseNetworks(context),
      }),
      // Defining is idempotent, and what comes next looks: nothing is found before, nothing seen behind it.
      step<CreateInput, Record<string, never>>({
        name: "define-domain",
        host: vmHost,
        async run(context) {
          const { vm, spec } = await readDomainSpec(context);
          await hostOf(context).defineDomain(spec, context.call);
          return { ...sizeOf(vm) };
        },
        write: ({ input }, result) => appliedWrites(input.vmId, Applied.parse(result)),
        undo: removeDomain,
      }),
      step<CreateInput, Record<string, never>>({
        name: "start-domain",
        host: vmHost,
        skip: ({ start }) => !start,
        async run(context) {
          // Nobody else has touched the domain since it was defined, unless time has passed.
          if (!context.resumed) return await bringUp(context, true);
          const domain = await observe(context);
          return isOn(domain?.power) ? await look(context) : await bringUp(context, domain !== null);
        },
        write: writeSeen,
        undo: (context) => cutPower(context),
      }),
      // The start has looked already.
      { ...observeStep<CreateInput>(), skip: ({ start }) => start },
    ],
    onEnd: recordCreated,
  };
}

function isDisk({ role }: VolumeRecord): boolean {
  return isDiskRole(role);
}

/** Takes back a definition, and what may run by it: this VM's domain can only come from this operation. */
async function removeDomain(context: StepContext<CreateInput>): Promise<void> {
  const host = hostOf(context);
  const { vmId } = context.operation.input;
  await cutPower(context);
  await host.removeDomain(vmId, context.call);
  const vm = await context.read((db) => getVm(db, vmId));
  if (vm === null || vm.pool === null || vm.domainName === null) return;
  await host.consoleLog?.deleteConsoleLog({ uuid: vmId, name: vm.domainName, pool: vm.pool }, context.call);
}

/** Makes the chosen volumes of the VM and fills each from its image or seed. Their names hold the VM's id, so a repeat finds them. */
function volumeStep(
  name: string,
  deps: VmCreateDeps,
  chosen: (volume: VolumeRecord) => boolean,
  skip: (input: CreateInput) => boolean,
) {
  return step<CreateInput, Record<string, never>>({
    name,
    host: vmHost,
    skip,
    timeoutSeconds: FILL_LIMIT_SECONDS,
    async run(context) {
      const found = await context.read((db) => getVmWithParts(db, context.operation.input.vmId));
      const complete: VolumeId[] = [];
      for (const volume of found?.volumes.filter(chosen) ?? []) {
        const imageId = found?.images.find(({ role }) => role === volume.role)?.imageId ?? null;
        const content = await ownContent(context, deps.secretBox, volume);
        if (await makeVolume(context, deps, volume, imageId, content)) complete.push(volume.id);
      }
      return madeVolumes(complete);
    },
    write: (_operation, result) => freedByMaking(result),
    async undo(context) {
      const ability = volumesOfHost(context.host);
      const volumes = await context.read((db) => volumesOf(db, context.operation.input.vmId));
      for (const volume of volumes.filter(chosen)) await ability.deleteVolume(volume, context.call);
    },
  });
}

/** What the volume holds that no image gives: the seed. */
async function ownContent(
  context: StepContext<CreateInput>,
  secretBox: SecretBox,
  { role }: VolumeRecord,
): Promise<VolumeContent | null> {
  if (role !== SEED_ROLE) return null;
  const { vmId } = context.operation.input;
  const sealed = await context.read((db) => sealedSeedOf(db, vmId));
  if (sealed === null) throw gone(vmId);
  const image = seedImage(openSeed(secretBox, sealed));
  return { sizeBytes: image.length, content: Readable.from([image]) };
}

async function recordCreated(
  tx: Tx,
  operation: OperationContext<CreateInput>,
  outcome: OperationOutcome,
): Promise<void> {
  if (outcome.state === "succeeded") {
    await completeVm(tx, operation.input.vmId, operation.id);
    return;
  }
  const vm = await lockVm(tx, operation.input.vmId);
  if (vm === null) return;
  if (outcome.undone) await releaseCopiesOfVm(tx, vm.id);
  // A delete that overtook it has set its own phase.
  if (vm.phase === "provisioning") {
    await setPhase(tx, vm.id, "failed");
    await appendEvent(tx, {
      type: "vm.failed",
      subject: { kind: "vm", id: vm.id, name: vm.name },
      projectId: vm.projectId,
      operationId: operation.id,
      data: { error: outcome.error.code },
    });
  }
  const cancelled = outcome.state === "cancelled";
  await keepOutcome(
    tx,
    vm,
    operation,
    cancelled ? { ...outcome, state: "failed", error: cancelledError() } : outcome,
  );
}

function cancelledError(): DroverError {
  return new DroverError(
    "cancelled",
    "The VM's creation was cancelled: delete it, and create it anew when it is wanted.",
  );
}

import { Readable } from "node:stream";
import { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import type { VolumeAbility } from "../hypervisors/hypervisor.ts";
import { HypervisorError } from "../hypervisors/hypervisor.ts";
import { copyOfVolume, releaseCopiesOfVm, releasedCopies } from "../image-cache/host-image-store.ts";
import type { ImageCacheDeps } from "../image-cache/image-cache.ts";
import type { ImageContents } from "../images/image-content.ts";
import { DroverError } from "../lib/errors.ts";
import type { ImageId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import {
  type OperationContext,
  type OperationKind,
  type OperationOutcome,
  type StepContext,
  step,
} from "../operations/operation-kind.ts";
import { type VolumeRecord, volumesOf } from "../volumes/volume-store.ts";
import { bringUp } from "./actions/start.ts";
import { openSeed, seedImage } from "./cloud-init/seed.ts";
import { sealedSeedOf } from "./cloud-init/vm-seed-store.ts";
import { keepOutcome } from "./vm-action.ts";
import { prepareNetworks, releaseNetworks } from "./vm-network-steps.ts";
import { appliedWrites } from "./vm-observation-store.ts";
import { isDiskRole, SEED_ROLE } from "./vm-record.ts";
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
import { makeFromCopy } from "./volume-from-copy.ts";

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

// A day is enough for the largest image over the slowest line that anyone would wait for.
const UPLOAD_LIMIT_SECONDS = 86_400;
const ANSWER_LIMIT_MS = 120_000;

export interface VmCreateDeps {
  readonly images: ImageContents;
  /** Opens what cloud-init is told. */
  readonly secretBox: SecretBox;
  /** Asked when a step runs: the registry of kinds holds this one. */
  readonly cache: () => ImageCacheDeps;
}

/** The operation that makes a VM real: its volumes, its domain, its start. All of it is undone when it fails. */
export function vmCreateKind(deps: VmCreateDeps): OperationKind<CreateInput> {
  return {
    name: "vm.create",
    input: CreateInput,
    deadlineSeconds: UPLOAD_LIMIT_SECONDS,
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

const Made = z.object({ complete: z.array(z.string()) });

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
    timeoutSeconds: UPLOAD_LIMIT_SECONDS,
    async run(context) {
      const found = await context.read((db) => getVmWithParts(db, context.operation.input.vmId));
      const complete: string[] = [];
      for (const volume of found?.volumes.filter(chosen) ?? []) {
        const imageId = found?.images.find(({ role }) => role === volume.role)?.imageId ?? null;
        const copy = imageId === null ? null : await context.read((db) => copyOfVolume(db, volume.id));
        if (copy === null) await fillVolume(context, deps, volume, imageId);
        else if (await makeFromCopy(context, deps.cache(), volumesAbility(context), volume, copy))
          complete.push(volume.id);
      }
      return { complete };
    },
    // What does not read from its copy any more gives it free.
    write: (_operation, result) => {
      const { complete } = Made.parse(result);
      return { parts: complete.length === 0 ? [] : [releasedCopies(complete)], events: [] };
    },
    async undo(context) {
      const ability = volumesAbility(context);
      const volumes = await context.read((db) => volumesOf(db, context.operation.input.vmId));
      for (const volume of volumes.filter(chosen)) await ability.deleteVolume(volume, context.call);
    },
  });
}

function volumesAbility(context: StepContext<CreateInput>): VolumeAbility {
  const { volumes } = hostOf(context);
  if (volumes === undefined) throw new HypervisorError("unsupported", "the host cannot make volumes");
  return volumes;
}

async function fillVolume(
  context: StepContext<CreateInput>,
  deps: VmCreateDeps,
  volume: VolumeRecord,
  imageId: ImageId | null,
): Promise<void> {
  const ability = volumesAbility(context);
  const { capacityBytes, format, pool, name } = volume;
  // The step may last as long as the content needs; a host that is silent for so long does not answer any more.
  const call = { ...context.call, timeoutMs: ANSWER_LIMIT_MS };
  const source = await contentOf(context, deps, volume, imageId);
  await ability.createVolume({ pool, name, format, capacityBytes }, call);
  if (source === null) return;
  const content = counted(source.content, (sent) => {
    context.progress(sent, source.sizeBytes, "bytes");
  });
  await ability.uploadVolume({ pool, name }, content, source.sizeBytes, call);
  if (isDisk(volume)) await ability.growVolume({ pool, name }, capacityBytes, call);
}

interface Content {
  readonly sizeBytes: number;
  readonly content: AsyncIterable<Uint8Array>;
}

/** What a volume is filled with; null for one that stays empty. */
async function contentOf(
  context: StepContext<CreateInput>,
  { images, secretBox }: VmCreateDeps,
  { role, format }: VolumeRecord,
  imageId: ImageId | null,
): Promise<Content | null> {
  if (imageId !== null)
    return format === "raw" && isDiskRole(role)
      ? await images.openRaw(imageId, context.call.signal)
      : await images.open(imageId);
  if (role !== SEED_ROLE) return null;
  const { vmId } = context.operation.input;
  const sealed = await context.read((db) => sealedSeedOf(db, vmId));
  if (sealed === null) throw gone(vmId);
  const image = seedImage(openSeed(secretBox, sealed));
  return { sizeBytes: image.length, content: Readable.from([image]) };
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

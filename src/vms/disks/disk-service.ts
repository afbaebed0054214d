import type { Tx } from "../../db/client.ts";
import { foreignKeyViolation } from "../../db/database-errors.ts";
import { type IfMatch, requireMatch } from "../../http/etag.ts";
import { useHostImage } from "../../image-cache/host-image-store.ts";
import { DroverError } from "../../lib/errors.ts";
import { newId, type VmId, type VolumeId } from "../../lib/ids.ts";
import { GIB } from "../../lib/units.ts";
import type { Subject, Target } from "../../operations/operation-kind.ts";
import { lockSubjects } from "../../operations/operation-lanes.ts";
import { enqueue } from "../../operations/operation-queue.ts";
import {
  copyFor,
  planContent,
  type QueuedVolume,
  type VolumeChangeDeps,
  type VolumeRequest,
} from "../../volumes/volume-create.ts";
import { volumeName } from "../../volumes/volume-names.ts";
import { FREE_ROLE, type VolumeDetails, volumeLabel } from "../../volumes/volume-record.ts";
import { volumeNamed } from "../../volumes/volume-service.ts";
import { insertVolume, listVolumes, lockVolume } from "../../volumes/volume-store.ts";
import { requireOnHost } from "../vm-capability.ts";
import { vmNamed } from "../vm-reader.ts";
import type { VmRecord } from "../vm-record.ts";
import type { Queued } from "../vm-request.ts";
import { lockVm } from "../vm-store.ts";
import { notAttachable } from "./attach-disk.ts";
import type { AttachDiskBody } from "./disk-schemas.ts";

/** As many as a definition has room for. */
const MAX_DISKS = 26;

/**
 * Queues the attaching of a disk, for which a volume is made where none is named. Throws `not_found`,
 * `precondition_failed`, `invalid_state`, `name_taken`, `in_use`, `conflict`, `capability_unsupported`.
 */
export async function attachDisk(
  tx: Tx,
  deps: VolumeChangeDeps,
  request: VolumeRequest,
  vmName: string,
  body: AttachDiskBody,
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const { project, actor, requestId } = request;
  const vm = await vmNamed(tx, project.id, vmName);
  await requireChangeable(tx, vm, "attach disks to");
  if (vm.spec.disks.some(({ name }) => name === body.name))
    throw new DroverError(
      "name_taken",
      `VM "${vm.name}" has a disk "${body.name}" already. Choose another name.`,
    );
  if (vm.spec.disks.length >= MAX_DISKS)
    throw new DroverError("invalid_state", `VM "${vm.name}" has ${MAX_DISKS} disks, as many as it can have.`);
  const isNew = body.volume === undefined;
  const lane: Subject = { kind: "vm", id: vm.id, mode: "exclusive" };
  // The lanes of what is there come before the host's row, see copyFor.
  await lockSubjects(tx, [lane]);
  const { volumeId, imageId, awaited } = isNew
    ? await newVolume(tx, deps, request, vm, body)
    : { volumeId: (await freeVolume(tx, request, vm, body.volume ?? "")).id, imageId: null, awaited: [] };
  const subjects: Subject[] = [lane, { kind: "volume", id: volumeId, mode: "exclusive" }, ...awaited];
  const operation = await enqueue(
    tx,
    {
      kind: deps.kinds.get("vm.attachDisk"),
      input: { vmId: vm.id, volumeId, disk: body.name, isNew, imageId },
      ...{ subjects, targets: targetsOf(vm, volumeId, body.volume ?? body.name), hosts: hostsOf(vm) },
      ...{ projectId: project.id, actor, requestId },
    },
    deps.kinds,
  );
  await requireUnchanged(tx, vm, ifMatch);
  return { id: vm.id, operationId: operation.id };
}

function targetsOf(vm: VmRecord, volumeId: VolumeId, name: string): Target[] {
  return [
    { kind: "vm", id: vm.id, name: vm.name },
    { kind: "volume", id: volumeId, name },
  ];
}

function hostsOf({ hostName }: VmRecord): string[] {
  return hostName === null ? [] : [hostName];
}

/** With the lane held. */
async function requireUnchanged(tx: Tx, vm: VmRecord, ifMatch: IfMatch | null): Promise<void> {
  const locked = await lockVm(tx, vm.id);
  if (locked === null) throw new DroverError("not_found", `The VM "${vm.name}" was deleted meanwhile.`);
  requireMatch(ifMatch, locked.generation);
}

/** A guest that is off needs nothing of its host for it but to be defined anew. */
async function requireChangeable(tx: Tx, vm: VmRecord, verb: string): Promise<void> {
  if (vm.phase === "deleting")
    throw new DroverError("invalid_state", `VM "${vm.name}" is being deleted and cannot be changed.`);
  if (vm.power === "running" || vm.power === "paused") {
    await requireOnHost(tx, vm, "diskHotplug", `${verb} the running guest of`);
  }
}

async function freeVolume(
  tx: Tx,
  { project }: VolumeRequest,
  vm: VmRecord,
  idOrName: string,
): Promise<VolumeDetails> {
  const volume = await volumeNamed(tx, project.id, idOrName).catch(() => null);
  if (volume === null) throw wrong("/volume", `there is no volume "${idOrName}"`);
  if (volume.hostId !== vm.hostId) {
    const message = `The volume ${volumeLabel(volume)} is on host "${volume.hostName}", VM "${vm.name}" on "${vm.hostName ?? ""}": a volume is attached where it is.`;
    throw new DroverError("conflict", message);
  }
  const error = notAttachable(volume);
  // One that is still being made is waited for: its operation comes first.
  if (error !== null && volume.state !== "planned") throw error;
  return volume;
}

async function newVolume(
  tx: Tx,
  deps: VolumeChangeDeps,
  request: VolumeRequest,
  vm: VmRecord,
  body: AttachDiskBody,
) {
  const { project } = request;
  const { hostId, pool } = vm;
  if (hostId === null || pool === null)
    throw new DroverError("invalid_state", `VM "${vm.name}" is on no host yet.`);
  const pointers = { image: "/image", size: "/sizeGib" };
  const content = await planContent(tx, project.id, { image: body.image, sizeGib: body.sizeGib }, pointers);
  const copy = await copyFor(tx, deps, request, { hostId, pool }, content);
  const id = newId<VolumeId>();
  const { imageId, source, format, capacityBytes } = content;
  const written = insertVolume(tx, {
    ...{ id, projectId: project.id, ownName: null, labels: {}, hostId, pool, role: FREE_ROLE },
    ...{ format, capacityBytes, source, imageId, deletePolicy: body.deletePolicy ?? "delete" },
    name: volumeName(deps.installationId, id, "volume", format),
  });
  await written.catch((error: unknown) => {
    if (foreignKeyViolation(error) === null) throw error;
    throw new DroverError("conflict", "The image of this disk was just deleted.", { cause: error });
  });
  if (copy.id !== null) await useHostImage(tx, id, copy.id);
  return { volumeId: id, imageId, awaited: copy.subjects };
}

/**
 * Queues the detaching of a disk. Throws `not_found`, `precondition_failed`, `invalid_state`, `capability_unsupported`.
 */
export async function detachDisk(
  tx: Tx,
  deps: Pick<VolumeChangeDeps, "kinds">,
  { project, actor, requestId }: VolumeRequest,
  asked: { readonly vm: string; readonly disk: string; readonly timeoutSeconds: number },
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const vm = await vmNamed(tx, project.id, asked.vm);
  await requireChangeable(tx, vm, "detach disks from");
  const [volume] = (
    await listVolumes(tx, project.id, { vm: vm.id }, "asc", { after: null, limit: 500 })
  ).filter(({ role }) => role === `disk:${asked.disk}`);
  if (volume === undefined) {
    const names = vm.spec.disks.map(({ name }) => name).join(", ");
    throw new DroverError("not_found", `VM "${vm.name}" has no disk "${asked.disk}". It has: ${names}.`);
  }
  if ("firmware" in vm.spec.boot && vm.spec.disks.length === 1 && vm.spec.nics.length === 0)
    throw new DroverError(
      "invalid_state",
      `VM "${vm.name}" boots by firmware and would have nothing to boot from.`,
    );
  const { id: volumeId } = volume;
  const subjects: Subject[] = [
    { kind: "vm", id: vm.id, mode: "exclusive" },
    { kind: "volume", id: volumeId, mode: "exclusive" },
  ];
  const operation = await enqueue(
    tx,
    {
      kind: deps.kinds.get("vm.detachDisk"),
      input: {
        ...{ vmId: vm.id, volumeId, disk: asked.disk, timeoutSeconds: asked.timeoutSeconds },
        deleteVolume: volume.deletePolicy === "delete",
      },
      ...{ subjects, targets: targetsOf(vm, volumeId, volume.ownName ?? asked.disk), hosts: hostsOf(vm) },
      ...{ projectId: project.id, actor, requestId },
    },
    deps.kinds,
  );
  await requireUnchanged(tx, vm, ifMatch);
  return { id: vm.id, operationId: operation.id };
}

/** Queues the growing of a volume. Throws `not_found`, `precondition_failed`, `invalid_request`, `invalid_state`. */
export async function resizeVolume(
  tx: Tx,
  deps: Pick<VolumeChangeDeps, "kinds">,
  { project, actor, requestId }: VolumeRequest,
  idOrName: string,
  sizeGib: number,
  ifMatch: IfMatch | null,
): Promise<QueuedVolume> {
  const volume = await volumeNamed(tx, project.id, idOrName);
  const capacityBytes = sizeGib * GIB;
  if (volume.vm !== null && !volume.role.startsWith("disk:"))
    throw new DroverError("invalid_state", "A file that a VM boots with has the size of its content.");
  if (capacityBytes < volume.capacityBytes) {
    const least = Math.ceil(volume.capacityBytes / GIB);
    throw wrong("/sizeGib", `a volume is never made smaller: give ${least} at least`);
  }
  const vm = volume.vm === null ? null : await vmNamed(tx, project.id, volume.vm.id);
  if (vm !== null) await requireChangeable(tx, vm, "grow the disks of");
  const own = { kind: "volume", id: volume.id, mode: "exclusive" } as const;
  const operation = await enqueue(
    tx,
    {
      kind: deps.kinds.get("volume.resize"),
      input: { volumeId: volume.id, vmId: vm?.id ?? null, capacityBytes },
      subjects: vm === null ? [own] : [own, { kind: "vm", id: vm.id, mode: "exclusive" }],
      targets: [{ kind: "volume", id: volume.id, name: volume.ownName ?? volume.id }],
      hosts: [volume.hostName],
      ...{ projectId: project.id, actor, requestId },
    },
    deps.kinds,
  );
  const locked = await lockVolume(tx, volume.id);
  if (locked === null) throw new DroverError("not_found", `The volume ${volume.id} was deleted meanwhile.`);
  requireMatch(ifMatch, locked.generation);
  return { id: volume.id, operationId: operation.id };
}

function wrong(pointer: string, message: string): DroverError {
  return new DroverError("invalid_request", `${pointer}: ${message}.`, {
    violations: [{ pointer, message }],
  });
}

import { z } from "zod";
import type { Database } from "../../db/client.ts";
import type { ProjectRef } from "../../http/auth.ts";
import type { Api } from "../../http/route.ts";
import { asId, type VolumeId } from "../../lib/ids.ts";
import { OperationSchema } from "../../operations/operation-schemas.ts";
import type { VolumeChangeDeps } from "../../volumes/volume-create.ts";
import { type Volume, VolumeAnswer } from "../../volumes/volume-schemas.ts";
import { changedVolume, viewVolume, volumeNamed } from "../../volumes/volume-service.ts";
import { changedVm, viewVm } from "../vm-reader.ts";
import { DeviceName, type Vm, VmSchema } from "../vm-schemas.ts";
import { findVm } from "../vm-store.ts";
import { AttachDiskBody, detachDiskQuery, ResizeVolumeBody } from "./disk-schemas.ts";
import { attachDisk, detachDisk, resizeVolume } from "./disk-service.ts";
import type { VolumeDownloads } from "./volume-download.ts";

export interface DiskRouteDeps extends VolumeChangeDeps {
  readonly db: Database;
  readonly downloads: VolumeDownloads;
}

const DiskAnswer = z.strictObject({ vm: VmSchema, operation: OperationSchema }).meta({ id: "VmDiskAnswer" });

const ERRORS = ["not_found", "precondition_failed", "invalid_state", "capability_unsupported"] as const;

/** Disks that come to a VM and go, and volumes that grow under one. */
export function registerDiskRoutes(api: Api, deps: DiskRouteDeps): void {
  registerDisks(api, deps);
  registerResize(api, deps);
  registerContent(api, deps);
}

function registerContent(api: Api, { db, downloads }: DiskRouteDeps): void {
  api.raw({
    access: "project",
    tag: "Volumes",
    method: "GET",
    path: "/v1/volumes/:volume/content",
    operationId: "downloadVolume",
    summary: "Download a volume",
    description:
      "Its content as it stands in its pool: of a qcow2 volume the whole qcow2 file. Refused while a VM may write to it.",
    responses: {
      200: {
        description: "The content.",
        content: { "application/octet-stream": { schema: z.string().meta({ format: "binary" }) } },
      },
    },
    errors: ["not_found", "invalid_state", "capability_unsupported", "host_unreachable"],
    handle: async ({ params, project, signal }) => {
      const volume = await volumeNamed(db, project.id, params.volume);
      const { sizeBytes, content } = await downloads(volume, signal);
      signal.addEventListener("abort", () => content.destroy(), { once: true });
      const name = `${volume.ownName ?? volume.id}.${volume.format}`;
      return {
        status: 200,
        headers: {
          "content-type": "application/octet-stream",
          "content-length": String(sizeBytes),
          "content-disposition": `attachment; filename="${name}"`,
          "cache-control": "no-store",
        },
        body: content,
      };
    },
  });
}

function registerDisks(api: Api, deps: DiskRouteDeps): void {
  const refresh = async ({ vm }: { readonly vm: Vm }, { project }: { readonly project: ProjectRef }) => {
    const fresh = await findVm(deps.db, project.id, vm.id);
    if (fresh === null) return null;
    return { body: { vm: await viewVm(deps.db, fresh) }, generation: fresh.generation };
  };
  api.change({
    access: "project",
    tag: "VMs",
    method: "POST",
    path: "/v1/vms/:vm/disks",
    operationId: "attachVmDisk",
    summary: "Attach a disk to a VM",
    description:
      "A volume that is there already, or a new one on the VM's host. A guest that runs gets it at once, without a " +
      "restart; one that is off with its next start. `spec.disks` has it when the operation has succeeded. The guest " +
      "finds it by its name: `/dev/disk/by-id/virtio-<name>`.",
    body: AttachDiskBody,
    responses: { 202: DiskAnswer },
    errors: [...ERRORS, "name_taken", "in_use", "conflict", "image_not_ready"],
    ifMatch: true,
    change: async (tx, { params, body, project, actor, requestId, ifMatch }) => {
      const request = { project, actor, requestId };
      const { id, operationId } = await attachDisk(tx, deps, request, params.vm, body, ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh,
  });
  api.change({
    access: "project",
    tag: "VMs",
    method: "DELETE",
    path: "/v1/vms/:vm/disks/:disk",
    operationId: "detachVmDisk",
    summary: "Detach a disk from a VM",
    description:
      "Asks a running guest to let go of it; one that does not in its time ends the operation as " +
      "`guest_did_not_let_go`, and everything is as it was. The volume goes with the disk where its delete policy is " +
      "`delete`, and is kept where it is `retain`.",
    params: { disk: DeviceName.meta({ description: "Name of the disk." }) },
    query: detachDiskQuery,
    responses: { 202: DiskAnswer },
    errors: ERRORS,
    ifMatch: true,
    change: async (tx, { params, query, project, actor, requestId, ifMatch }) => {
      const request = { project, actor, requestId };
      const asked = { vm: params.vm, disk: params.disk, timeoutSeconds: query.timeoutSeconds };
      const { id, operationId } = await detachDisk(tx, deps, request, asked, ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh,
  });
}

function registerResize(api: Api, deps: DiskRouteDeps): void {
  api.change({
    access: "project",
    tag: "Volumes",
    method: "POST",
    path: "/v1/volumes/:volume/resize",
    operationId: "resizeVolume",
    summary: "Grow a volume",
    description:
      "A running guest sees the new size of its disk at once; its partitions and file systems are its own to grow.",
    body: ResizeVolumeBody,
    responses: { 202: VolumeAnswer },
    errors: ERRORS,
    ifMatch: true,
    change: async (tx, { params, body, project, actor, requestId, ifMatch }) => {
      const request = { project, actor, requestId };
      const { id, operationId } = await resizeVolume(tx, deps, request, params.volume, body.sizeGib, ifMatch);
      const volume = await changedVolume(tx, project, id);
      return { status: 202, body: { volume }, operation: operationId, generation: volume.generation };
    },
    refresh: async ({ volume }: { readonly volume: Volume }, { project }) => {
      const fresh = await viewVolume(deps.db, project, asId<VolumeId>(volume.id));
      return fresh === null ? null : { body: { volume: fresh }, generation: fresh.generation };
    },
  });
}

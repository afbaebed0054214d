import type { Database } from "../db/client.ts";
import type { ProjectRef } from "../http/auth.ts";
import type { Api } from "../http/route.ts";
import { asId, type VolumeId } from "../lib/ids.ts";
import { createVolume, deleteVolume, type VolumeChangeDeps } from "./volume-create.ts";
import {
  CreateVolumeBody,
  listVolumesQuery,
  PatchVolumeBody,
  type Volume,
  VolumeAnswer,
  VolumePage,
  VolumeSchema,
} from "./volume-schemas.ts";
import { changedVolume, pageOfVolumes, patchVolume, viewVolume, volumeNamed } from "./volume-service.ts";

export interface VolumeRouteDeps extends VolumeChangeDeps {
  readonly db: Database;
}

const BASE = { access: "project", tag: "Volumes" } as const;

/** Volumes belong to a project, and stand in a pool of a host. */
export function registerVolumeRoutes(api: Api, deps: VolumeRouteDeps): void {
  registerReads(api, deps);
  registerChanges(api, deps);
  registerSettings(api);
}

/** The volume of a 202 anew after `?wait=`; null when it is gone by then. */
function refresher({ db }: VolumeRouteDeps) {
  return async ({ volume }: { readonly volume: Volume }, { project }: { readonly project: ProjectRef }) => {
    const fresh = await viewVolume(db, project, asId<VolumeId>(volume.id));
    return fresh === null ? null : { body: { volume: fresh }, generation: fresh.generation };
  };
}

function registerChanges(api: Api, deps: VolumeRouteDeps): void {
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/volumes",
    operationId: "createVolume",
    summary: "Create a volume",
    description:
      "A volume of its own, empty or from an image, in the named pool or where there is the most room. The volume is " +
      "there at once, in state `creating`; when its operation fails it is `failed` and nothing is on the host. To use it " +
      "see `attachVmDisk`. Unless asked otherwise it outlives the VMs that it is attached to.",
    body: CreateVolumeBody,
    responses: { 202: VolumeAnswer },
    errors: ["name_taken", "no_placement", "image_not_ready", "conflict"],
    change: async (tx, { body, project, actor, requestId }) => {
      const { id, operationId } = await createVolume(tx, deps, { project, actor, requestId }, body);
      const volume = await changedVolume(tx, project, id);
      return { status: 202, body: { volume }, operation: operationId, generation: volume.generation };
    },
    refresh: refresher(deps),
  });
  api.change({
    ...BASE,
    method: "DELETE",
    path: "/v1/volumes/:volume",
    operationId: "deleteVolume",
    summary: "Delete a volume",
    description: "With its content. Refused while it is attached to a VM.",
    responses: { 202: VolumeAnswer },
    errors: ["not_found", "precondition_failed", "in_use"],
    ifMatch: true,
    change: async (tx, { params, ifMatch, project, actor, requestId }) => {
      const request = { project, actor, requestId };
      const { id, operationId } = await deleteVolume(tx, deps, request, params.volume, ifMatch);
      const volume = await changedVolume(tx, project, id);
      return { status: 202, body: { volume }, operation: operationId, generation: volume.generation };
    },
    refresh: refresher(deps),
  });
}

function registerReads(api: Api, { db }: VolumeRouteDeps): void {
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/volumes",
    operationId: "listVolumes",
    summary: "List volumes",
    description:
      "The disks, boot files and seeds of VMs, and volumes of their own. With `orphan=true` those that stand in a pool " +
      "with this installation's mark and that nothing owns.",
    query: listVolumesQuery,
    responses: { 200: VolumePage },
    handle: async ({ project, query }) => ({ status: 200, body: await pageOfVolumes(db, project, query) }),
  });
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/volumes/:volume",
    operationId: "getVolume",
    summary: "Get a volume",
    responses: { 200: VolumeSchema },
    errors: ["not_found"],
    handle: async ({ params, project }) => {
      const { id } = await volumeNamed(db, project.id, params.volume);
      const body = await changedVolume(db, project, id);
      return { status: 200, body, generation: body.generation };
    },
  });
}

function registerSettings(api: Api): void {
  api.change({
    ...BASE,
    method: "PATCH",
    path: "/v1/volumes/:volume",
    operationId: "updateVolume",
    summary: "Change a volume's labels and delete policy",
    description:
      "A JSON Merge Patch. Naming the delete policy of an orphan keeps it from being collected: it is the project's.",
    body: PatchVolumeBody,
    ifMatch: true,
    responses: { 200: VolumeSchema },
    errors: ["not_found", "precondition_failed"],
    change: async (tx, { body, ifMatch, params, project }) => {
      const volume = await patchVolume(tx, project, params.volume, body, ifMatch);
      return { status: 200, body: volume, generation: volume.generation };
    },
  });
}

import type { Database } from "../db/client.ts";
import type { Api } from "../http/route.ts";
import { listVolumesQuery, PatchVolumeBody, VolumePage, VolumeSchema } from "./volume-schemas.ts";
import { changedVolume, pageOfVolumes, patchVolume, volumeNamed } from "./volume-service.ts";

export interface VolumeRouteDeps {
  readonly db: Database;
}

const BASE = { access: "project", tag: "Volumes" } as const;

/** Volumes belong to a project, and stand in a pool of a host. */
export function registerVolumeRoutes(api: Api, deps: VolumeRouteDeps): void {
  registerReads(api, deps);
  registerSettings(api);
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

import type { Sql } from "../db/client.ts";
import { type Api, NoContent } from "../http/route.ts";
import {
  CreateSshKeyBody,
  listSshKeysQuery,
  PatchSshKeyBody,
  SshKeyPage,
  SshKeySchema,
} from "./ssh-key-schemas.ts";
import { createSshKey, deleteSshKey, pageOfSshKeys, patchSshKey, readSshKey } from "./ssh-key-service.ts";

export interface SshKeyRouteDeps {
  readonly db: Sql;
}

/** Public keys belong to a project; `spec.cloudInit` of a new VM names them. */
export function registerSshKeyRoutes(api: Api, { db }: SshKeyRouteDeps): void {
  api.change({
    method: "POST",
    path: "/v1/ssh-keys",
    access: "project",
    operationId: "createSshKey",
    tag: "SSH keys",
    summary: "Create an ssh key",
    body: CreateSshKeyBody,
    responses: { 201: SshKeySchema },
    errors: ["name_taken"],
    change: async (tx, { body, project }) => {
      const key = await createSshKey(tx, project, body);
      return { status: 201, body: key, generation: key.generation, location: `/v1/ssh-keys/${key.id}` };
    },
  });

  api.read({
    method: "GET",
    path: "/v1/ssh-keys",
    access: "project",
    operationId: "listSshKeys",
    tag: "SSH keys",
    summary: "List ssh keys",
    query: listSshKeysQuery,
    responses: { 200: SshKeyPage },
    handle: async ({ project, query }) => ({ status: 200, body: await pageOfSshKeys(db, project, query) }),
  });

  api.read({
    method: "GET",
    path: "/v1/ssh-keys/:sshKey",
    access: "project",
    operationId: "getSshKey",
    tag: "SSH keys",
    summary: "Get an ssh key",
    responses: { 200: SshKeySchema },
    errors: ["not_found"],
    handle: async ({ params, project }) => {
      const key = await readSshKey(db, project, params.sshKey);
      return { status: 200, body: key, generation: key.generation };
    },
  });

  api.change({
    method: "PATCH",
    path: "/v1/ssh-keys/:sshKey",
    access: "project",
    operationId: "updateSshKey",
    tag: "SSH keys",
    summary: "Change an ssh key's labels",
    body: PatchSshKeyBody,
    ifMatch: true,
    responses: { 200: SshKeySchema },
    errors: ["not_found", "precondition_failed"],
    change: async (tx, { body, ifMatch, params, project }) => {
      const key = await patchSshKey(tx, project, params.sshKey, body, ifMatch);
      return { status: 200, body: key, generation: key.generation };
    },
  });

  api.change({
    method: "DELETE",
    path: "/v1/ssh-keys/:sshKey",
    access: "project",
    operationId: "deleteSshKey",
    tag: "SSH keys",
    summary: "Delete an ssh key",
    description: "VMs that were made with it keep letting it in: they have their own copy.",
    ifMatch: true,
    responses: { 204: NoContent },
    errors: ["not_found", "precondition_failed"],
    change: async (tx, { ifMatch, params, project }) => {
      await deleteSshKey(tx, project, params.sshKey, ifMatch);
      return { status: 204, body: undefined };
    },
  });
}

import { z } from "zod";
import type { Sql } from "../db/client.ts";
import type { Api } from "../http/route.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";
import { deleteNetwork, withdrawNetwork } from "./network-delete.ts";
import {
  CreateNetworkBody,
  listNetworksQuery,
  NetworkPage,
  NetworkSchema,
  PatchNetworkBody,
} from "./network-schemas.ts";
import { createNetwork, pageOfNetworks, patchNetwork, readNetwork, viewNetwork } from "./network-service.ts";
import { findNetwork } from "./network-store.ts";

export interface NetworkRouteDeps {
  readonly db: Sql;
  readonly kinds: KindRegistry;
}

const NetworkAnswer = z
  .strictObject({ network: NetworkSchema, operation: OperationSchema })
  .meta({ id: "NetworkAnswer" });

/** Networks belong to a project; `spec.nics` of its VMs name them. */
export function registerNetworkRoutes(api: Api, deps: NetworkRouteDeps): void {
  registerReads(api, deps);
  registerChanges(api, deps);
  registerRemovals(api, deps);
}

function registerReads(api: Api, { db }: NetworkRouteDeps): void {
  api.read({
    method: "GET",
    path: "/v1/networks",
    access: "project",
    operationId: "listNetworks",
    tag: "Networks",
    summary: "List networks",
    query: listNetworksQuery,
    responses: { 200: NetworkPage },
    handle: async ({ project, query }) => ({ status: 200, body: await pageOfNetworks(db, project, query) }),
  });
  api.read({
    method: "GET",
    path: "/v1/networks/:network",
    access: "project",
    operationId: "getNetwork",
    tag: "Networks",
    summary: "Get a network",
    responses: { 200: NetworkSchema },
    errors: ["not_found"],
    handle: async ({ params, project }) => {
      const network = await readNetwork(db, project, params.network);
      return { status: 200, body: network, generation: network.generation };
    },
  });
}

function registerChanges(api: Api, _deps: NetworkRouteDeps): void {
  api.change({
    method: "POST",
    path: "/v1/networks",
    access: "project",
    operationId: "createNetwork",
    tag: "Networks",
    summary: "Create a network",
    description:
      "Writes the network down. A host gets it with the first VM there that has a NIC in it; no two networks have subnets that overlap, save those on bridges of the hosts.",
    body: CreateNetworkBody,
    responses: { 201: NetworkSchema },
    errors: ["name_taken", "conflict"],
    change: async (tx, { body, project }) => {
      const network = await createNetwork(tx, project, body);
      const { generation } = network;
      return { status: 201, body: network, generation, location: `/v1/networks/${network.id}` };
    },
  });
  api.change({
    method: "PATCH",
    path: "/v1/networks/:network",
    access: "project",
    operationId: "updateNetwork",
    tag: "Networks",
    summary: "Change a network's labels",
    body: PatchNetworkBody,
    ifMatch: true,
    responses: { 200: NetworkSchema },
    errors: ["not_found", "precondition_failed"],
    change: async (tx, { body, ifMatch, params, project }) => {
      const network = await patchNetwork(tx, project, params.network, body, ifMatch);
      return { status: 200, body: network, generation: network.generation };
    },
  });
}

function registerRemovals(api: Api, { db, kinds }: NetworkRouteDeps): void {
  api.change({
    method: "DELETE",
    path: "/v1/networks/:network",
    access: "project",
    operationId: "deleteNetwork",
    tag: "Networks",
    summary: "Delete a network",
    description:
      "Takes it off every host that has it, each by an operation `network.withdraw`, and then forgets it. Refused while NICs use it.",
    ifMatch: true,
    responses: { 202: NetworkAnswer },
    errors: ["not_found", "precondition_failed", "in_use"],
    change: async (tx, { params, project, actor, requestId, ifMatch }) => {
      const request = { project, actor, requestId };
      const { network, operationId } = await deleteNetwork(tx, kinds, request, params.network, ifMatch);
      return { status: 202, body: { network }, operation: operationId, generation: network.generation };
    },
    refresh: async ({ network }, { project }) => {
      const row = await findNetwork(db, project.id, network.id);
      if (row === null) return null;
      return { body: { network: await viewNetwork(db, project, row) }, generation: row.generation };
    },
  });
  api.change({
    method: "DELETE",
    path: "/v1/networks/:network/hosts/:host",
    access: "project",
    operationId: "removeNetworkFromHost",
    tag: "Networks",
    summary: "Take a network off a host",
    description:
      "Removes it from a host where no VM uses it any more. The next VM there that needs it has it made anew.",
    responses: { 202: NetworkAnswer },
    errors: ["not_found", "in_use"],
    change: async (tx, { params, project, actor, requestId }) => {
      const request = { project, actor, requestId };
      const { network, operationId } = await withdrawNetwork(tx, kinds, request, params.network, params.host);
      return { status: 202, body: { network }, operation: operationId, generation: network.generation };
    },
    refresh: async ({ network }, { project }) => {
      const row = await findNetwork(db, project.id, network.id);
      if (row === null) return null;
      return { body: { network: await viewNetwork(db, project, row) }, generation: row.generation };
    },
  });
}

import { z } from "zod";
import type { Database, Tx } from "../db/client.ts";
import { LabelSelector } from "../http/labels.ts";
import { pageOf, pageQuery, pageWindow, toPage } from "../http/pagination.ts";
import type { Api } from "../http/route.ts";
import { QueryBoolean, timestamp } from "../http/schemas.ts";
import type { HostId } from "../lib/ids.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";
import { forgetHost } from "./host-forget.ts";
import {
  ForgetHostBody,
  type Host,
  HostDomainSchema,
  HostNetworkSchema,
  HostPoolSchema,
  HostSchema,
  HostStateName,
  PatchHostBody,
  RegisterHostBody,
} from "./host-schemas.ts";
import {
  deleteHost,
  type HostServiceDeps,
  lookAtHost,
  patchHost,
  refreshHost,
  registerHost,
  requireHost,
  scheduleHost,
} from "./host-service.ts";
import { domainsOnHost, findHost, listHosts, networksOnHost, poolsOnHost } from "./host-store.ts";
import { viewHost, viewHosts } from "./host-view.ts";

export interface HostRouteDeps extends HostServiceDeps {
  readonly db: Database;
}

const HostAnswer = z
  .strictObject({ host: HostSchema, operation: OperationSchema })
  .meta({ id: "HostAnswer" });
const BASE = { access: "installation", tag: "Hosts" } as const;

export function registerHostRoutes(api: Api, deps: HostRouteDeps): void {
  registerReads(api, deps);
  registerContents(api, deps);
  registerChanges(api, deps);
  registerSettings(api, deps);
}

async function viewById(tx: Tx, id: HostId): Promise<Host> {
  return await viewHost(tx, await requireHost(tx, id));
}

function refresher({ db }: HostRouteDeps) {
  return async ({ host }: { readonly host: Host }) => {
    const fresh = await findHost(db, host.id);
    return fresh === null
      ? null
      : { body: { host: await viewHost(db, fresh) }, generation: fresh.generation };
  };
}

function registerReads(api: Api, { db }: HostRouteDeps): void {
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts",
    operationId: "listHosts",
    summary: "List hosts",
    query: {
      ...pageQuery,
      state: HostStateName.optional(),
      hypervisor: z.enum(["kvm", "xen"]).optional(),
      schedulable: QueryBoolean.optional(),
      labelSelector: LabelSelector.optional(),
    },
    responses: { 200: pageOf(HostSchema).meta({ id: "HostPage" }) },
    handle: async ({ query }) => {
      const { pageSize, pageToken, labelSelector, ...filter } = query;
      const request = { pageSize, pageToken };
      const binding = { list: "hosts", orderBy: "name", filters: { ...filter, labelSelector } };
      const { after, limit } = pageWindow(binding, request);
      const afterName = after === null ? null : String(after.value);
      const hosts = await listHosts(db, { ...filter, labels: labelSelector }, { afterName, limit });
      const rows = await viewHosts(db, hosts);
      const page = toPage(
        binding,
        request,
        rows,
        ({ name, id }) => ({ value: name, id }),
        (host) => host,
      );
      return { status: 200, body: page };
    },
  });
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts/:host",
    operationId: "getHost",
    summary: "Get a host",
    description:
      "With what it is, what it can do for each guest type, what is free, and why it is silent when it is.",
    responses: { 200: HostSchema },
    errors: ["not_found"],
    handle: async ({ params }) => {
      const host = await requireHost(db, params.host);
      return { status: 200, body: await viewHost(db, host), generation: host.generation };
    },
  });
}

/** What an inventory confirms it does not write again: everything that is listed was seen by the last one. */
function latest(writtenAt: Date, inventoryAt: Date | null): Date {
  return inventoryAt !== null && inventoryAt > writtenAt ? inventoryAt : writtenAt;
}

/** What the last inventory found on a host: at most some hundred rows, so these lists have one page. */
function registerContents(api: Api, { db }: HostRouteDeps): void {
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts/:host/domains",
    operationId: "listHostDomains",
    summary: "List the domains that a host has",
    description: "Ours and others: what is not ours is listed as unmanaged and never touched.",
    responses: { 200: z.strictObject({ items: z.array(HostDomainSchema) }).meta({ id: "HostDomainList" }) },
    errors: ["not_found"],
    handle: async ({ params }) => {
      const host = await requireHost(db, params.host);
      const items = (await domainsOnHost(db, host.id)).map((row) => ({
        ...row,
        power: HostDomainSchema.shape.power.parse(row.power),
        managed: row.vmId !== null,
        observedAt: timestamp(row.observedAt),
      }));
      return { status: 200, body: { items } };
    },
  });
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts/:host/networks",
    operationId: "listHostNetworks",
    summary: "List the networks that a host has",
    responses: { 200: z.strictObject({ items: z.array(HostNetworkSchema) }).meta({ id: "HostNetworkList" }) },
    errors: ["not_found"],
    handle: async ({ params }) => {
      const host = await requireHost(db, params.host);
      const rows = await networksOnHost(db, host.id);
      const items = rows.map(({ name, uuid, active, bridge, mode, observedAt }) => ({
        ...{ name, uuid, active, bridge, mode },
        observedAt: timestamp(latest(observedAt, host.inventoryAt)),
      }));
      return { status: 200, body: { items } };
    },
  });
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/hosts/:host/pools",
    operationId: "listHostPools",
    summary: "List the storage pools that a host has",
    responses: { 200: z.strictObject({ items: z.array(HostPoolSchema) }).meta({ id: "HostPoolList" }) },
    errors: ["not_found"],
    handle: async ({ params }) => {
      const host = await requireHost(db, params.host);
      const rows = await poolsOnHost(db, host.id);
      const items = rows.map(
        ({ name, uuid, active, type, path, capacityBytes, availableBytes, observedAt }) => ({
          ...{ name, uuid, active, type, path },
          ...{ capacityBytes: Number(capacityBytes), availableBytes: Number(availableBytes) },
          allocationBytes: Math.max(0, Number(capacityBytes - availableBytes)),
          observedAt: timestamp(latest(observedAt, host.inventoryAt)),
        }),
      );
      return { status: 200, body: { items } };
    },
  });
}

function registerChanges(api: Api, deps: HostRouteDeps): void {
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/hosts",
    operationId: "registerHost",
    summary: "Register a host",
    description:
      "Looks at the host once, then registers it and queues its first probe. A host that does not answer is registered all the same and tried again for as long as it is registered; one with an unknown host key, or that refuses the credentials, is not.",
    body: RegisterHostBody,
    responses: { 202: HostAnswer },
    errors: ["name_taken", "already_exists", "host_key_unknown"],
    prepare: ({ body, signal }) => lookAtHost(deps, body, signal),
    change: async (tx, { body, actor, requestId }, look) => {
      const { id, operationId } = await registerHost(tx, deps, { actor, requestId }, body, look);
      const host = await viewById(tx, id);
      return { status: 202, body: { host }, operation: operationId, generation: host.generation };
    },
    refresh: refresher(deps),
  });
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/hosts/:host/refresh",
    operationId: "refreshHost",
    summary: "Probe a host and take its inventory now",
    responses: { 202: HostAnswer },
    errors: ["not_found"],
    change: async (tx, { params, actor, requestId }) => {
      const { id, operationId } = await refreshHost(tx, deps, { actor, requestId }, params.host);
      const host = await viewById(tx, id);
      return { status: 202, body: { host }, operation: operationId, generation: host.generation };
    },
    refresh: refresher(deps),
  });
  api.change({
    ...BASE,
    method: "DELETE",
    path: "/v1/hosts/:host",
    operationId: "deleteHost",
    summary: "Delete a host",
    description: "Takes it out of the inventory; nothing on it is touched. Refused while VMs are on it.",
    responses: { 204: z.undefined() },
    errors: ["not_found", "in_use", "precondition_failed"],
    ifMatch: true,
    change: async (tx, { params, ifMatch }) => {
      await deleteHost(tx, deps.kinds, params.host, ifMatch);
      return { status: 204, body: undefined };
    },
  });
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/hosts/:host/forget",
    operationId: "forgetHost",
    summary: "Give up a dead host with its VMs",
    description:
      "For a host that will never answer again: takes it and its VMs out of the inventory, and ends what was queued for them as failed. Refused for a host that answers. Nothing on the host is touched.",
    body: ForgetHostBody,
    responses: { 204: z.undefined() },
    errors: ["not_found", "invalid_state"],
    change: async (tx, { params, body }) => {
      await forgetHost(tx, deps.kinds, params.host, body.confirmName);
      return { status: 204, body: undefined };
    },
  });
}

function registerSettings(api: Api, deps: HostRouteDeps): void {
  api.change({
    ...BASE,
    method: "PATCH",
    path: "/v1/hosts/:host",
    operationId: "updateHost",
    summary: "Change a host's settings",
    body: PatchHostBody,
    responses: { 200: HostSchema },
    errors: ["not_found", "precondition_failed"],
    ifMatch: true,
    change: async (tx, { params, body, ifMatch }) => {
      const host = await viewById(tx, await patchHost(tx, deps, params.host, body, ifMatch));
      return { status: 200, body: host, generation: host.generation };
    },
  });
  for (const [verb, schedulable, summary] of [
    ["cordon", false, "Place nothing new on a host"],
    ["uncordon", true, "Place VMs on a host again"],
  ] as const) {
    api.change({
      ...BASE,
      method: "POST",
      path: `/v1/hosts/:host/${verb}`,
      operationId: `${verb}Host`,
      summary,
      responses: { 200: HostSchema },
      errors: ["not_found", "precondition_failed"],
      ifMatch: true,
      change: async (tx, { params, ifMatch }) => {
        const host = await viewById(tx, await scheduleHost(tx, params.host, schedulable, ifMatch));
        return { status: 200, body: host, generation: host.generation };
      },
    });
  }
}

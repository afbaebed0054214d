import { Readable } from "node:stream";
import { z } from "zod";
import type { Database } from "../db/client.ts";
import { LabelSelector } from "../http/labels.ts";
import { orderByQuery, pageOf, pageQuery, pageWindow, parseOrderBy, toPage } from "../http/pagination.ts";
import type { Api } from "../http/route.ts";
import { IdOrName, Name, queryInteger } from "../http/schemas.ts";
import type { DeclaredGuestType } from "../hypervisors/capabilities.ts";
import type { InstallationId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { MIB } from "../lib/units.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { vmActions } from "./actions/index.ts";
import { start } from "./actions/start.ts";
import { stop } from "./actions/stop.ts";
import { createPlacementSnapshots } from "./placement-snapshot.ts";
import { refresher, VmAnswer } from "./vm-answers.ts";
import { requireOnHost } from "./vm-capability.ts";
import { actOnVm, deleteVm, patchVm } from "./vm-change.ts";
import type { ConsoleLogReader } from "./vm-console.ts";
import { attachNic, detachNic } from "./vm-nic-change.ts";
import { nicSpecOf } from "./vm-nics.ts";
import { changedVm, viewVm, viewVms, vmNamed } from "./vm-reader.ts";
import { AttachNicBody, CreateVmBody, DeviceName, PatchVmBody, VM_FILTERS, VmSchema } from "./vm-schemas.ts";
import { createVm } from "./vm-service.ts";
import { listVms } from "./vm-store.ts";

export interface VmRouteDeps {
  readonly db: Database;
  readonly kinds: KindRegistry;
  readonly consoleLog: ConsoleLogReader;
  /** What the drivers declare. */
  readonly declared: readonly DeclaredGuestType[];
  readonly secretBox: SecretBox;
  readonly installationId: InstallationId;
  /** What the copies of images in a host's pool may take. */
  readonly imageCacheBytes: number;
}

const LIST_QUERY = {
  ...pageQuery,
  ...VM_FILTERS,
  name: Name.optional(),
  host: IdOrName.optional().meta({ description: "Id or name of the host that they are on." }),
  labelSelector: LabelSelector.optional(),
  orderBy: orderByQuery(["name", "createdAt"], "name"),
};

export function registerVmRoutes(api: Api, deps: VmRouteDeps): void {
  registerReads(api, deps);
  registerChanges(api, deps);
  for (const action of vmActions) registerAction(api, deps, action);
  registerNicRoutes(api, deps);
  registerConsole(api, deps);
}

function registerReads(api: Api, { db }: VmRouteDeps): void {
  api.read({
    method: "GET",
    path: "/v1/vms",
    access: "project",
    operationId: "listVms",
    tag: "VMs",
    summary: "List VMs",
    query: LIST_QUERY,
    responses: { 200: pageOf(VmSchema).meta({ id: "VmPage" }) },
    handle: async ({ query, project }) => {
      const { pageSize, pageToken, orderBy, labelSelector, ...filter } = query;
      const request = { pageSize, pageToken };
      const binding = { list: "vms", orderBy, filters: { ...filter, labelSelector, project: project.id } };
      const { after, limit } = pageWindow(binding, request);
      const order = parseOrderBy(orderBy);
      const key = after === null ? null : { value: String(after.value), id: after.id };
      const vms = await listVms(db, project.id, { ...filter, labels: labelSelector }, order, {
        after: key,
        limit,
      });
      const views = new Map((await viewVms(db, vms)).map((view) => [view.id, view]));
      const page = toPage(
        binding,
        request,
        vms,
        (vm) => ({ value: order.field === "name" ? vm.name : vm.createdAt.toISOString(), id: vm.id }),
        (vm) => views.get(vm.id),
      );
      return { status: 200, body: { ...page, items: page.items.filter((view) => view !== undefined) } };
    },
  });
  api.read({
    method: "GET",
    path: "/v1/vms/:vm",
    access: "project",
    operationId: "getVm",
    tag: "VMs",
    summary: "Get a VM",
    responses: { 200: VmSchema },
    errors: ["not_found"],
    handle: async ({ params, project }) => {
      const vm = await vmNamed(db, project.id, params.vm);
      return { status: 200, body: await viewVm(db, vm), generation: vm.generation };
    },
  });
}

function registerChanges(api: Api, deps: VmRouteDeps): void {
  const { kinds } = deps;
  const snapshots = createPlacementSnapshots();
  api.change({
    method: "POST",
    path: "/v1/vms",
    access: "project",
    operationId: "createVm",
    tag: "VMs",
    summary: "Create a VM",
    description:
      "Chooses a host, reserves its room there at once, and queues the operation that makes the VM. When no host has room it is refused with the reason of each host, and what no driver can do at all as `capability_unsupported`; nothing is kept.",
    body: CreateVmBody,
    responses: { 202: VmAnswer },
    errors: ["name_taken", "already_exists", "no_placement", "capability_unsupported", "image_not_ready"],
    change: async (tx, { body, project, actor, requestId }) => {
      const { id, operationId } = await createVm(
        tx,
        deps,
        { projectId: project.id, actor, requestId },
        body,
        { declared: deps.declared, snapshots },
      );
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh: refresher(deps.db),
  });
  api.change({
    method: "PATCH",
    path: "/v1/vms/:vm",
    access: "project",
    operationId: "updateVm",
    tag: "VMs",
    summary: "Change a VM",
    description:
      "A JSON Merge Patch on `labels` and on `cpu`, `memoryMib` and `runPolicy` of `spec`. CPU and memory take effect at the next start: until then the VM carries the condition `RestartRequired`. A changed run policy queues the start or stop and is answered with 202.",
    body: PatchVmBody,
    responses: { 200: VmSchema, 202: VmAnswer },
    errors: ["not_found", "precondition_failed", "invalid_state", "no_placement", "capability_unsupported"],
    ifMatch: true,
    change: async (tx, { params, body, project, actor, requestId, ifMatch }) => {
      const request = { projectId: project.id, actor, requestId };
      const { id, operationId } = await patchVm(
        tx,
        kinds,
        request,
        { start, stop },
        params.vm,
        body,
        ifMatch,
      );
      const { view, generation } = await changedVm(tx, id);
      if (operationId === null) return { status: 200, body: view, generation };
      return { status: 202, body: { vm: view }, operation: operationId, generation };
    },
    refresh: refresher(deps.db),
  });
  api.change({
    method: "DELETE",
    path: "/v1/vms/:vm",
    access: "project",
    operationId: "deleteVm",
    tag: "VMs",
    summary: "Delete a VM",
    description:
      "Cuts its power, removes it from its host and deletes its disks. It overtakes what is queued for the VM, and is allowed in every state.",
    responses: { 202: VmAnswer },
    errors: ["not_found", "precondition_failed"],
    ifMatch: true,
    change: async (tx, { params, project, actor, requestId, ifMatch }) => {
      const request = { projectId: project.id, actor, requestId };
      const { id, operationId } = await deleteVm(tx, kinds, request, params.vm, ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh: refresher(deps.db),
  });
}

/** `disks` and `nics` of a spec have paths of their own. */
function registerNicRoutes(api: Api, deps: VmRouteDeps): void {
  const { db, kinds } = deps;
  api.change({
    method: "POST",
    path: "/v1/vms/:vm/nics",
    access: "project",
    operationId: "attachVmNic",
    tag: "VMs",
    summary: "Add a NIC to a VM",
    description:
      "Plugs it into a VM that runs or is paused, where its host can (`nicHotplug`); one that is off has it at its next start. Its addresses are reserved at once.",
    body: AttachNicBody,
    responses: { 202: VmAnswer },
    errors: [
      ...(["not_found", "precondition_failed", "invalid_state", "name_taken", "already_exists"] as const),
      ...(["addresses_exhausted", "capability_unsupported", "conflict"] as const),
    ],
    ifMatch: true,
    change: async (tx, { params, body, project, actor, requestId, ifMatch }) => {
      const request = { projectId: project.id, actor, requestId };
      const { id, operationId } = await attachNic(tx, kinds, request, params.vm, nicSpecOf(body), ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh: refresher(db),
  });
  api.change({
    method: "DELETE",
    path: "/v1/vms/:vm/nics/:nic",
    access: "project",
    operationId: "detachVmNic",
    tag: "VMs",
    summary: "Take a NIC out of a VM",
    description:
      "Takes it out of a VM that is on, where its host can (`nicHotplug`) and its guest lets it go, and out of its definition. Its addresses are free afterwards.",
    params: { nic: DeviceName.meta({ description: "Name of the NIC." }) },
    responses: { 202: VmAnswer },
    errors: ["not_found", "precondition_failed", "invalid_state", "capability_unsupported"],
    ifMatch: true,
    change: async (tx, { params, project, actor, requestId, ifMatch }) => {
      const request = { projectId: project.id, actor, requestId };
      const { id, operationId } = await detachNic(tx, kinds, request, params.vm, params.nic, ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh: refresher(db),
  });
}

function registerAction(api: Api, deps: VmRouteDeps, action: (typeof vmActions)[number]): void {
  api.change({
    method: "POST",
    path: `/v1/vms/:vm/${action.name}`,
    access: "project",
    operationId: `${action.name}Vm`,
    tag: "VMs",
    summary: action.summary,
    description: action.description,
    body: action.body,
    responses: { 202: VmAnswer },
    errors: ["not_found", "precondition_failed", "invalid_state", "capability_unsupported"],
    ifMatch: true,
    change: async (tx, { params, body, project, actor, requestId, ifMatch }) => {
      const request = { projectId: project.id, actor, requestId };
      const { id, operationId } = await actOnVm(tx, deps.kinds, request, action, params.vm, body, ifMatch);
      const { view: vm, generation } = await changedVm(tx, id);
      return { status: 202, body: { vm }, operation: operationId, generation };
    },
    refresh: refresher(deps.db),
  });
}

function registerConsole(api: Api, { db, consoleLog }: VmRouteDeps): void {
  api.raw({
    method: "GET",
    path: "/v1/vms/:vm/console/log",
    access: "project",
    operationId: "getVmConsoleLog",
    tag: "VMs",
    summary: "Read the end of the serial console's log",
    description: "The last bytes that the guest wrote to its serial console, as it wrote them.",
    query: {
      maxBytes: queryInteger({ min: 1, max: MIB })
        .default(65_536)
        .meta({ description: "How many bytes of the end to give." }),
    },
    responses: {
      200: {
        description: "The end of the log.",
        content: { "text/plain": { schema: z.string() } },
      },
    },
    errors: ["not_found", "host_unreachable", "capability_unsupported"],
    handle: async ({ params, query, project, signal }) => {
      const vm = await vmNamed(db, project.id, params.vm);
      await requireOnHost(db, vm, "consoleLog", "keep the console log of");
      const bytes = await consoleLog(vm, query.maxBytes, signal);
      return {
        status: 200,
        headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" },
        body: Readable.from([Buffer.from(bytes)], { objectMode: false }),
      };
    },
  });
}

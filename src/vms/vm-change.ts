import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { getHost } from "../hosts/host-store.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { patchLabels } from "../http/labels.ts";
import { DroverError } from "../lib/errors.ts";
import type { OperationId, VmId } from "../lib/ids.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue, unfinishedOperations } from "../operations/operation-queue.ts";
import { fit, isPlaced, memoryWithOverhead } from "./placement.ts";
import { lockPlacementHost } from "./placement-store.ts";
import type { VmAction } from "./vm-action.ts";
import { notAllowed } from "./vm-action.ts";
import { setObservedGeneration } from "./vm-observation-store.ts";
import type { RunPolicy, VmRecord } from "./vm-record.ts";
import type { Queued, VmRequest } from "./vm-request.ts";
import type { PatchVmBody } from "./vm-schemas.ts";
import { findVm, lockVm, setPhase, updateReservation, updateSpec } from "./vm-store.ts";

/** Changes of a VM that exists: actions, PATCH and delete, each in the caller's transaction. */

/** Throws `not_found`. */
export async function requireVmNamed(tx: Tx, request: VmRequest, idOrName: string): Promise<VmRecord> {
  const vm = await findVm(tx, request.projectId, idOrName);
  if (vm !== null) return vm;
  throw new DroverError(
    "not_found",
    `There is no VM "${idOrName}" in this project. List them with GET /v1/vms.`,
  );
}

/**
 * Queues an action. Whether the VM's state allows it is checked when its turn comes. Throws `not_found`,
 * `precondition_failed`, `capability_unsupported`, and `invalid_state` for a VM that is being deleted.
 */
export async function actOnVm(
  tx: Tx,
  kinds: KindRegistry,
  request: VmRequest,
  action: VmAction,
  idOrName: string,
  body: unknown,
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const vm = await requireVmNamed(tx, request, idOrName);
  await requireCapability(tx, vm, action);
  // Its lane before its row: in this order everywhere, so that no two requests wait for each other.
  const operation = await enqueue(
    tx,
    {
      kind: action.kind,
      input: action.inputFor(vm.id, body),
      subjects: [{ kind: "vm", id: vm.id, mode: "exclusive" }],
      targets: [{ kind: "vm", id: vm.id, name: vm.name }],
      hosts: vm.hostName === null ? [] : [vm.hostName],
      ...request,
    },
    kinds,
  );
  const locked = await lockVm(tx, vm.id);
  if (locked === null) throw new DroverError("not_found", `The VM "${vm.name}" was deleted meanwhile.`);
  requireMatch(ifMatch, locked.generation);
  if (locked.phase === "deleting") throw notAllowed(action.name, locked);
  if (action.runPolicy !== null) await setRunPolicy(tx, locked, action.runPolicy);
  return { id: vm.id, operationId: operation.id };
}

/** The host's own list says what it can do, before anything is touched. A host that never answered is given the benefit. */
async function requireCapability(tx: Tx, vm: VmRecord, action: VmAction): Promise<void> {
  if (action.capability === null || vm.hostId === null) return;
  const facts = (await getHost(tx, vm.hostId))?.facts;
  const offered = facts?.guestTypes.find(({ guestType }) => guestType === vm.guestType);
  if (offered === undefined || offered.capabilities.includes(action.capability)) return;
  throw new DroverError(
    "capability_unsupported",
    `Host "${vm.hostName ?? ""}" cannot ${action.name} a VM of type ${vm.guestType ?? "unknown"}. What it can do: GET /v1/hosts/${vm.hostName ?? ""}.`,
    { details: { capability: action.capability } },
  );
}

async function setRunPolicy(tx: Tx, vm: VmRecord, runPolicy: RunPolicy): Promise<void> {
  if (vm.spec.runPolicy === runPolicy) return;
  await updateSpec(tx, vm.id, { spec: { ...vm.spec, runPolicy } });
  await keepInStep(tx, vm);
}

/** A change that the host's definition does not hold leaves it as current as it was. */
async function keepInStep(tx: Tx, vm: VmRecord): Promise<void> {
  if (vm.observedGeneration === vm.generation) await setObservedGeneration(tx, vm.id, vm.generation + 1);
}

/**
 * Applies a merge patch to labels, CPUs, memory and the run policy. A changed run policy queues the start or stop.
 * Throws `not_found`, `precondition_failed`, `invalid_state`, `no_placement` where the host has no room.
 */
export async function patchVm(
  tx: Tx,
  kinds: KindRegistry,
  request: VmRequest,
  actions: { readonly start: VmAction; readonly stop: VmAction },
  idOrName: string,
  patch: PatchVmBody,
  ifMatch: IfMatch | null,
): Promise<{ readonly id: VmId; readonly operationId: OperationId | null }> {
  const named = await requireVmNamed(tx, request, idOrName);
  const runPolicy = patch.spec?.runPolicy;
  const queued =
    runPolicy === undefined || runPolicy === named.spec.runPolicy
      ? null
      : await actOnVm(
          tx,
          kinds,
          request,
          runPolicy === "running" ? actions.start : actions.stop,
          named.id,
          {},
          ifMatch,
        );
  const vm = await lockVm(tx, named.id);
  if (vm === null) throw new DroverError("not_found", `The VM "${named.name}" was deleted meanwhile.`);
  if (queued === null) requireMatch(ifMatch, vm.generation);
  if (vm.phase === "deleting") {
    throw new DroverError("invalid_state", `VM "${vm.name}" is being deleted and cannot be changed.`);
  }
  await applyPatch(tx, request, vm, patch);
  return { id: vm.id, operationId: queued?.operationId ?? null };
}

async function applyPatch(tx: Tx, request: VmRequest, vm: VmRecord, patch: PatchVmBody): Promise<void> {
  const labels = patch.labels === undefined ? vm.labels : patchLabels(vm.labels, patch.labels);
  const cpu = patch.spec?.cpu ?? vm.spec.cpu;
  const memoryMib = patch.spec?.memoryMib ?? vm.spec.memoryMib;
  const resized = cpu.count !== vm.spec.cpu.count || memoryMib !== vm.spec.memoryMib;
  const relabelled = JSON.stringify(labels) !== JSON.stringify(vm.labels);
  if (!resized && !relabelled) return;
  if (resized) await resize(tx, vm, cpu.count, memoryMib);
  await updateSpec(tx, vm.id, { spec: { ...vm.spec, cpu, memoryMib }, labels });
  if (!resized) await keepInStep(tx, vm);
  await appendEvent(tx, {
    type: "vm.updated",
    subject: { kind: "vm", id: vm.id, name: vm.name },
    projectId: request.projectId,
    data: { cpuCount: cpu.count, memoryMib, labels },
  });
}

/** Changes the reservation under the host's lock, if the host has the room. */
async function resize(tx: Tx, vm: VmRecord, cpuCount: number, memoryMib: number): Promise<void> {
  if (vm.hostId === null) return;
  const host = await lockPlacementHost(tx, vm.hostId);
  if (host === null) return;
  const needed = memoryWithOverhead(memoryMib);
  const without = {
    ...host,
    // Its own part is given back first; a resize asks nothing else of the host.
    schedulable: true,
    state: "ready" as const,
    reservedCpuCount: host.reservedCpuCount - vm.spec.cpu.count,
    reservedMemoryMib: host.reservedMemoryMib - memoryWithOverhead(vm.spec.memoryMib),
  };
  const result = fit(
    {
      hypervisor: null,
      guestType: vm.guestType,
      cpuCount,
      memoryMib: needed,
      capabilities: [],
      networks: [],
      volumeBytes: 0,
      pool: vm.pool,
      hostId: null,
    },
    without,
  );
  const grows = cpuCount > vm.spec.cpu.count || memoryMib > vm.spec.memoryMib;
  if (grows && !isPlaced(result)) {
    throw new DroverError(
      "no_placement",
      `Host "${host.name}" has no room for the larger VM: ${result.message}.`,
      {
        details: { hosts: [result] },
      },
    );
  }
  await updateReservation(tx, vm.id, { cpuCount, memoryMib: needed });
}

/**
 * Queues the delete of a VM, which overtakes what is queued for it; a second delete joins the first. Throws
 * `not_found`, `precondition_failed`.
 */
export async function deleteVm(
  tx: Tx,
  kinds: KindRegistry,
  request: VmRequest,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const vm = await requireVmNamed(tx, request, idOrName);
  requireMatch(ifMatch, vm.generation);
  const running = (await unfinishedOperations(tx, { kind: "vm", id: vm.id })).find(
    ({ kind }) => kind === "vm.delete",
  );
  if (running !== undefined) return { id: vm.id, operationId: running.id };
  const operation = await enqueue(
    tx,
    {
      kind: kinds.get("vm.delete"),
      input: { vmId: vm.id },
      subjects: [{ kind: "vm", id: vm.id, mode: "exclusive" }],
      targets: [{ kind: "vm", id: vm.id, name: vm.name }],
      hosts: vm.hostName === null ? [] : [vm.hostName],
      ...request,
    },
    kinds,
  );
  const locked = await lockVm(tx, vm.id);
  if (locked === null) throw new DroverError("not_found", `The VM "${vm.name}" was deleted meanwhile.`);
  requireMatch(ifMatch, locked.generation);
  await setPhase(tx, vm.id, "deleting");
  return { id: vm.id, operationId: operation.id };
}

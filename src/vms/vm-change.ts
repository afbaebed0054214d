import { isDeepStrictEqual } from "node:util";
import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { patchLabels } from "../http/labels.ts";
import { DroverError } from "../lib/errors.ts";
import type { OperationId, VmId } from "../lib/ids.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { enqueue, unfinishedOperations } from "../operations/operation-queue.ts";
import { memoryWithOverhead, type PlacementHost, shortage } from "./placement.ts";
import { lockPlacementHost } from "./placement-store.ts";
import type { VmAction } from "./vm-action.ts";
import { notAllowed } from "./vm-action.ts";
import { requireOnHost } from "./vm-capability.ts";
import { setObservedGeneration } from "./vm-observation-store.ts";
import { vmNamed } from "./vm-reader.ts";
import type { RunPolicy, VmPower, VmRecord } from "./vm-record.ts";
import type { Queued, VmRequest } from "./vm-request.ts";
import type { PatchVmBody } from "./vm-schemas.ts";
import { lockVm, reservationOf, setPhase, updateReservation, updateSpec } from "./vm-store.ts";

/** Changes of a VM that exists: actions, PATCH and delete, each in the caller's transaction. */

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
  const vm = await vmNamed(tx, request.projectId, idOrName);
  if (action.capability !== null) await requireOnHost(tx, vm, action.capability, action.name);
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
  const named = await vmNamed(tx, request.projectId, idOrName);
  const runPolicy = patch.spec?.runPolicy;
  const turns = runPolicy !== undefined && runPolicy !== named.spec.runPolicy;
  if (turns) await lockSubjects(tx, [{ kind: "vm", id: named.id, mode: "exclusive" }]);
  const host = changesSize(patch) ? await hostOf(tx, named) : null;
  const queued = !turns
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
  await applyPatch(tx, request, vm, patch, host);
  return { id: vm.id, operationId: queued?.operationId ?? null };
}

function changesSize({ spec }: PatchVmBody): boolean {
  return spec?.cpu !== undefined || spec?.memoryMib !== undefined;
}

/** The VM's host, its row locked: after lanes and before the VM's own row, as where a host's inventory is recorded. */
async function hostOf(tx: Tx, { hostId }: VmRecord): Promise<PlacementHost | null> {
  return hostId === null ? null : await lockPlacementHost(tx, hostId);
}

async function applyPatch(
  tx: Tx,
  request: VmRequest,
  vm: VmRecord,
  patch: PatchVmBody,
  host: PlacementHost | null,
): Promise<void> {
  const labels = patch.labels === undefined ? vm.labels : patchLabels(vm.labels, patch.labels);
  const cpu = patch.spec?.cpu ?? vm.spec.cpu;
  const memoryMib = patch.spec?.memoryMib ?? vm.spec.memoryMib;
  const resized = cpu.count !== vm.spec.cpu.count || memoryMib !== vm.spec.memoryMib;
  const relabelled = !isDeepStrictEqual(labels, vm.labels);
  if (!resized && !relabelled) return;
  if (resized && host !== null) await resize(tx, vm, host, cpu.count, memoryMib);
  await updateSpec(tx, vm.id, { spec: { ...vm.spec, cpu, memoryMib }, labels });
  if (!resized) await keepInStep(tx, vm);
  await appendEvent(tx, {
    type: "vm.updated",
    subject: { kind: "vm", id: vm.id, name: vm.name },
    projectId: request.projectId,
    data: { cpuCount: cpu.count, memoryMib, labels },
  });
}

/**
 * Changes the reservation, if the host has the room. A VM that is or may come on keeps what it has until it has shrunk:
 * see recordSeen.
 */
async function resize(
  tx: Tx,
  vm: VmRecord,
  host: PlacementHost,
  cpuCount: number,
  memoryMib: number,
): Promise<void> {
  const wanted = { cpuCount, memoryMib: memoryWithOverhead(memoryMib) };
  const has = (await reservationOf(tx, vm.id)) ?? { cpuCount: 0, memoryMib: 0 };
  const short = shortage(wanted, host, has);
  if (short !== null) {
    throw new DroverError(
      "no_placement",
      `Host "${host.name}" has no room for the larger VM: ${short.message}.`,
      { details: { hosts: [{ host: host.name, ...short }] } },
    );
  }
  const atRest =
    OFF.has(vm.power) && (await unfinishedOperations(tx, { kind: "vm", id: vm.id })).length === 0;
  const kept = {
    cpuCount: Math.max(wanted.cpuCount, has.cpuCount),
    memoryMib: Math.max(wanted.memoryMib, has.memoryMib),
  };
  await updateReservation(tx, vm.id, atRest ? wanted : kept);
}

const OFF: ReadonlySet<VmPower> = new Set(["off", "crashed"]);

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
  const vm = await vmNamed(tx, request.projectId, idOrName);
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

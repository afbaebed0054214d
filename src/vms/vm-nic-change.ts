import { uniqueViolation } from "../db/database-errors.ts";
import type { Tx } from "../db/transaction.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { DroverError } from "../lib/errors.ts";
import type { VmId } from "../lib/ids.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { networkRefusal } from "./placement.ts";
import { placementHosts } from "./placement-store.ts";
import { requireOnHost } from "./vm-capability.ts";
import { wrong } from "./vm-images.ts";
import { notChangeable } from "./vm-nic-kinds.ts";
import { setNicSpecs } from "./vm-nic-rows.ts";
import { insertNic, isManagedNic, nicCount } from "./vm-nic-store.ts";
import { networkSubjects, networkWishes, type PlannedNic, planNics, reserveNics } from "./vm-nics.ts";
import { vmNamed } from "./vm-reader.ts";
import type { VmNicSpec, VmRecord } from "./vm-record.ts";
import type { Queued, VmRequest } from "./vm-request.ts";
import { MAX_NICS } from "./vm-schemas.ts";
import { lockVm } from "./vm-store.ts";

/** Changes of the NICs of a VM that exists, each in the caller's transaction. */

/**
 * Writes a NIC down with its addresses, and queues what plugs it in. Throws `not_found`, `precondition_failed`,
 * `invalid_state`, `invalid_request`, `name_taken`, `already_exists`, `addresses_exhausted`, `capability_unsupported`.
 */
export async function attachNic(
  tx: Tx,
  kinds: KindRegistry,
  request: VmRequest,
  idOrName: string,
  nic: VmNicSpec,
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const named = await vmNamed(tx, request.projectId, idOrName);
  const planned = await planNics(tx, request.projectId, [{ nic, pointer: "" }]);
  const lanes = networkSubjects(planned);
  const operation = await enqueue(
    tx,
    {
      ...about(named, request),
      kind: kinds.get("vm.attachNic"),
      ...inputOf(named, nic.name, lanes.length > 0),
      subjects: [own(named), ...lanes],
    },
    kinds,
  );
  const vm = await lockChangeable(tx, named, ifMatch);
  if (vm.hostId === null || vm.hypervisor === null) throw notChangeable(vm);
  if ((await nicCount(tx, vm.id)) >= MAX_NICS) {
    throw new DroverError("conflict", `VM "${vm.name}" has ${MAX_NICS} NICs, and can have no more.`);
  }
  await requireNetwork(tx, vm, planned);
  const [row] = await reserveNics(tx, planned, { id: vm.hostId, hypervisor: vm.hypervisor });
  if (row === undefined) throw new Error("a NIC was planned, and none was reserved");
  await insertNic(tx, vm.id, row).catch((error: unknown) => {
    throw takenBy(error, vm, nic.name);
  });
  await setNicSpecs(tx, vm, [...vm.spec.nics, nic]);
  return { id: vm.id, operationId: operation.id };
}

/** Takes a NIC out of the spec, and queues what unplugs it. Throws `not_found`, `precondition_failed`, `invalid_state`. */
export async function detachNic(
  tx: Tx,
  kinds: KindRegistry,
  request: VmRequest,
  idOrName: string,
  nic: string,
  ifMatch: IfMatch | null,
): Promise<Queued<VmId>> {
  const named = await vmNamed(tx, request.projectId, idOrName);
  await lockSubjects(tx, [own(named)]);
  const managed = await isManagedNic(tx, named.id, nic);
  const operation = await enqueue(
    tx,
    {
      ...about(named, request),
      kind: kinds.get("vm.detachNic"),
      ...inputOf(named, nic, managed === true),
      subjects: [own(named)],
    },
    kinds,
  );
  const vm = await lockChangeable(tx, named, ifMatch);
  const others = vm.spec.nics.filter(({ name }) => name !== nic);
  if (managed === null || others.length === vm.spec.nics.length) {
    const has = vm.spec.nics.map(({ name }) => name).join(", ");
    throw new DroverError(
      "not_found",
      `VM "${vm.name}" has no NIC "${nic}". It has: ${has === "" ? "none" : has}.`,
    );
  }
  await setNicSpecs(tx, vm, others);
  return { id: vm.id, operationId: operation.id };
}

function own({ id }: VmRecord) {
  return { kind: "vm", id, mode: "exclusive" } as const;
}

function inputOf({ id }: VmRecord, nic: string, managed: boolean) {
  return { input: { vmId: id, nic, managed } };
}

function about(vm: VmRecord, request: VmRequest) {
  return {
    ...request,
    targets: [{ kind: "vm", id: vm.id, name: vm.name } as const],
    hosts: vm.hostName === null ? [] : [vm.hostName],
  };
}

/** Whether the power allows it then is asked when its turn comes; what can never be done is refused at once. */
async function lockChangeable(tx: Tx, named: VmRecord, ifMatch: IfMatch | null): Promise<VmRecord> {
  const vm = await lockVm(tx, named.id);
  if (vm === null) throw new DroverError("not_found", `The VM "${named.name}" was deleted meanwhile.`);
  requireMatch(ifMatch, vm.generation);
  if (vm.phase !== "ready") throw notChangeable(vm);
  const isOn = vm.power === "running" || vm.power === "paused";
  if (isOn) await requireOnHost(tx, vm, "nicHotplug", "change the NICs of");
  return vm;
}

/** The VM stays where it is: its host must have the network, or be able to make it. */
async function requireNetwork(tx: Tx, vm: VmRecord, planned: readonly PlannedNic[]): Promise<void> {
  const [host] = vm.hostId === null ? [] : await placementHosts(tx, vm.hostId);
  if (host === undefined || vm.guestType === null) return;
  const { networks, managed } = await networkWishes(tx, planned);
  const refusal = networkRefusal({ networks, managedNetworks: managed }, host, vm.guestType);
  if (refusal !== null) throw wrong("/network", `cannot be had on host "${host.name}": ${refusal}`);
}

function takenBy(error: unknown, vm: VmRecord, nic: string): unknown {
  const key = uniqueViolation(error);
  if (key === null) return error;
  if (key.includes("mac_address")) {
    const message = "The MAC address belongs to another NIC. Leave it out, and one is made.";
    return new DroverError("already_exists", message, { cause: error });
  }
  const message = `VM "${vm.name}" has a NIC "${nic}" already, or one that is being taken out. Choose another name.`;
  return new DroverError("name_taken", message, { cause: error });
}

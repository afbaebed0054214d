import { timestamp } from "../http/schemas.ts";
import { GIB, MIB } from "../lib/units.ts";
import type { Condition, DiskPool, VmCloudInit, VmRecord, VmSurroundings } from "./vm-record.ts";
import type { Vm } from "./vm-schemas.ts";
import { allowedActions, withCondition } from "./vm-state.ts";

/** A VM as the API shows it. */
export function viewOf(vm: VmRecord, around: VmSurroundings): Vm {
  return {
    id: vm.id,
    name: vm.name,
    project: vm.projectName,
    labels: vm.labels,
    generation: vm.generation,
    createdAt: timestamp(vm.createdAt),
    updatedAt: timestamp(vm.updatedAt),
    spec: specOf(vm),
    status: {
      phase: vm.phase,
      power: vm.power,
      powerReason: vm.powerReason,
      host: vm.hostName,
      pool: vm.pool,
      domainUuid: vm.domainUuid,
      domainName: vm.domainName,
      hypervisor: vm.hypervisor,
      guestType: vm.guestType,
      images: around.images.map(({ role, imageId, imageName, sha256 }) => ({
        role,
        id: imageId,
        name: imageName,
        sha256,
      })),
      observedAt: timestamp(observedAt(vm, around)),
      observedGeneration: vm.observedGeneration,
      nics: around.nics.map((nic) => ({ ...nic, addresses: [...nic.addresses] })),
      addresses: addressesOf(vm, around),
      agent: agentOf(vm, around),
      conditions: conditionsOf(vm, around),
      allowedActions: allowedActions(vm),
      operations: [...around.operations],
    },
  };
}

function specOf(vm: VmRecord): Vm["spec"] {
  const { disks, nics, cloudInit, ...spec } = vm.spec;
  const told = cloudInit === undefined ? {} : { cloudInit: cloudInitOf(cloudInit) };
  return { ...spec, disks: [...disks], nics: [...nics], ...told };
}

function cloudInitOf({ sshKeys, users, ...rest }: VmCloudInit): NonNullable<Vm["spec"]["cloudInit"]> {
  return {
    ...rest,
    sshKeys: [...sshKeys],
    users: users.map((user) => ({ ...user, sshKeys: [...user.sshKeys] })),
  };
}

/** What was seen of a VM that is on, and what its NICs have besides. */
function addressesOf(vm: VmRecord, { nics }: VmSurroundings): Vm["status"]["addresses"] {
  const seen = isOn(vm)
    ? vm.addresses.filter(({ source }) => source !== "agent" || vm.agentState === "connected")
    : [];
  return nics.flatMap(({ name, addresses: own }) => {
    const ofNic = seen.filter(({ nic }) => nic === name);
    const unseen = own.filter((address) => !ofNic.some((one) => one.address === address));
    return [
      ...ofNic.map(({ address, source }) => ({ address, nic: name, source })),
      ...unseen.map((address) => ({ address, nic: name, source: "static" as const })),
    ];
  });
}

function isOn({ power }: VmRecord): boolean {
  return power === "running" || power === "paused";
}

/** What an agent told is shown as long as it is there: what it told before is of another life of the guest. */
function agentOf(vm: VmRecord, { agent }: VmSurroundings): Vm["status"]["agent"] {
  const state = agentStateOf(vm);
  const told = state === "connected" ? agent : null;
  return {
    state,
    hostName: told?.hostName ?? null,
    osName: told?.osName ?? null,
    kernelRelease: told?.kernelRelease ?? null,
    observedAt: timestamp(told?.toldAt ?? null),
    error: told?.error ?? null,
  };
}

function agentStateOf(vm: VmRecord): Vm["status"]["agent"]["state"] {
  if (vm.power === "unknown" || vm.observedAt === null) return "unknown";
  if (vm.agentState === null) return "unsupported";
  return isOn(vm) ? vm.agentState : "disconnected";
}

/** A complete inventory of a live host confirms what was seen before it. */
function observedAt(vm: VmRecord, { host }: VmSurroundings): Date | null {
  if (vm.observedAt === null || host?.ready !== true || host.inventoryAt === null) return vm.observedAt;
  return host.inventoryAt > vm.observedAt ? host.inventoryAt : vm.observedAt;
}

/** Less than a guest writes at once: then it is the room that is lacking, and not the disk that is broken. */
const NO_ROOM_BYTES = 64 * MIB;

/** The host pauses a guest whose write it cannot do, and does the write again when the guest is resumed. */
function diskError(pools: readonly DiskPool[]): { readonly reason: string; readonly message: string } {
  const room = pools
    .map(({ pool, availableBytes }) => `pool "${pool}" had ${(availableBytes / GIB).toFixed(2)} GiB free`)
    .join(", ");
  const paused = "The host could not write to a disk of the VM and paused it before anything was lost";
  if (pools.some(({ availableBytes }) => availableBytes < NO_ROOM_BYTES)) {
    const message = `${paused}: there is no room (${room}). Free room there and resume the VM: the write is done then.`;
    return { reason: "NoSpace", message };
  }
  const seen = room === "" ? "" : ` When last seen ${room}.`;
  return {
    reason: "IoError",
    message: `${paused}.${seen} Look at the host's storage, then resume the VM: the write is tried again.`,
  };
}

/** The stored conditions, and those that follow from what is known otherwise. */
function conditionsOf(vm: VmRecord, around: VmSurroundings): Condition[] {
  let conditions: Condition[] = [...vm.conditions];
  const add = (type: Condition["type"], reason: string, message: string, since: Date) => {
    conditions = withCondition(conditions, { type, reason, message, since: since.toISOString() });
  };
  const seenAt = vm.observedAt ?? vm.updatedAt;
  if (around.host !== null && !around.host.ready) {
    const why = around.host.error ?? "it has not answered yet";
    add(
      "HostUnreachable",
      "HostSilent",
      `Host "${vm.hostName ?? ""}" does not answer: ${why}`,
      around.host.since,
    );
  }
  if (vm.power === "crashed") {
    add(
      "Crashed",
      vm.powerReason ?? "crashed",
      "The guest ended without being asked to. Look at its console log; start it again.",
      seenAt,
    );
  }
  if (vm.power === "paused" && vm.powerReason === "ioerror") {
    const { reason, message } = diskError(around.diskPools);
    add("DiskError", reason, message, seenAt);
  }
  const on = vm.power === "running" || vm.power === "paused" || vm.power === "saved";
  if (on && vm.observedGeneration !== null && vm.observedGeneration < vm.generation) {
    add(
      "RestartRequired",
      "SpecChanged",
      "CPU or memory were changed; they take effect when the VM is stopped and started.",
      vm.updatedAt,
    );
  }
  return conditions;
}

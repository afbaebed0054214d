import { timestamp } from "../http/schemas.ts";
import type { VolumeDetails } from "./volume-record.ts";
import type { Volume } from "./volume-schemas.ts";

/** A volume as the API shows it. */
export function toVolume(volume: VolumeDetails, project: string, operations: readonly string[]): Volume {
  return {
    id: volume.id,
    name: volume.ownName,
    project,
    labels: { ...volume.labels },
    generation: volume.generation,
    createdAt: timestamp(volume.createdAt),
    updatedAt: timestamp(volume.updatedAt),
    deletePolicy: volume.deletePolicy,
    source: { ...volume.source },
    state: stateOf(volume),
    error: volume.error === null ? null : { ...volume.error },
    host: volume.hostName,
    pool: volume.pool,
    nameInPool: volume.name,
    format: volume.format,
    capacityBytes: volume.capacityBytes,
    allocationBytes: volume.allocationBytes,
    observedAt: timestamp(volume.observedAt),
    vm: volume.vm === null ? null : { id: volume.vm.id, name: volume.vm.name },
    ...placeInVm(volume.role),
    orphanSince: timestamp(volume.orphanSince),
    operations: [...operations],
  };
}

/** A VM that could not be made has taken its volumes back. */
function stateOf({ state, vm }: VolumeDetails): Volume["state"] {
  if (state !== "planned") return state;
  return vm?.phase === "failed" ? "failed" : "creating";
}

function placeInVm(role: string): Pick<Volume, "role" | "disk"> {
  switch (role) {
    case "kernel":
    case "initrd":
    case "seed":
      return { role, disk: null };
    default:
      return role.startsWith("disk:")
        ? { role: "disk", disk: role.slice("disk:".length) }
        : { role: null, disk: null };
  }
}

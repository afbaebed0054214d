import type { Call, DiskHotplugAbility, DomainDisk, HostTarget } from "../hypervisor.ts";
import type { SimCall, SimCalls } from "./sim-calls.ts";

/** Disks of simulated guests that are on: kept in the domain's definition, which is what the guest has too. */
export function simDiskHotplug(target: HostTarget, calls: SimCalls): DiskHotplugAbility {
  const change = async (
    kind: SimCall & ("attachDisk" | "detachDisk" | "growDisk"),
    uuid: string,
    { volume }: DomainDisk,
    capacityBytes: number | null,
    call: Call,
  ): Promise<unknown> => {
    const verb = kind.replace("Disk", "");
    const args = [uuid, target.installationId, verb, volume.pool, volume.name, capacityBytes];
    return await calls.change(kind, "change_disk", args, call);
  };
  return {
    async attachDisk(uuid, disk, call) {
      await change("attachDisk", uuid, disk, null, call);
    },
    detachDisk: async (uuid, disk, call) => (await change("detachDisk", uuid, disk, null, call)) === true,
    async growDisk(uuid, disk, capacityBytes, call) {
      await change("growDisk", uuid, disk, capacityBytes, call);
    },
  };
}

import type { Sql } from "../db/transaction.ts";
import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import type { HostId, VmId, VolumeId } from "../lib/ids.ts";

/** A volume on a host. Its row is there before the volume is made, and goes after the volume is gone. */
export interface VolumeRecord {
  readonly id: VolumeId;
  readonly hostId: HostId;
  readonly pool: string;
  readonly name: string;
  /** `disk:<name>`, `kernel`, `initrd`, `seed`. */
  readonly role: string;
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
}

/** A volume that is written with its VM, on the VM's host and in its pool. */
export interface NewVolume extends Omit<VolumeRecord, "hostId" | "pool"> {
  readonly position: number;
}

/** The volumes of a VM, boot files and disks, in the order in which the guest sees them. */
export async function volumesOf(db: Sql, vmId: VmId): Promise<VolumeRecord[]> {
  // A capacity is exact in a double up to 8 PiB.
  return await db.$queryRaw<VolumeRecord[]>`
    SELECT id, host_id AS "hostId", pool, name, role, format, capacity_bytes::float8 AS "capacityBytes"
    FROM volume WHERE vm_id = ${vmId}::uuid ORDER BY position, name`;
}

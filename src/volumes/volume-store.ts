import type { Db, Tx } from "../db/transaction.ts";
import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import { asId, type HostId, type ProjectId, type VmId, type VolumeId } from "../lib/ids.ts";

/** A volume on a host. Its row is there before the volume is made, and goes after the volume is gone. */
export interface VolumeRecord {
  readonly id: VolumeId;
  readonly hostId: HostId;
  readonly pool: string;
  readonly name: string;
  /** `disk:<name>`, `kernel`, `initrd`. */
  readonly role: string;
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
}

export interface NewVolume extends VolumeRecord {
  readonly projectId: ProjectId;
  readonly vmId: VmId;
  readonly position: number;
}

export async function insertVolumes(tx: Tx, volumes: readonly NewVolume[]): Promise<void> {
  await tx.volume.createMany({
    data: volumes.map((volume) => ({ ...volume, capacityBytes: BigInt(volume.capacityBytes) })),
  });
}

/** The volumes of a VM, boot files and disks, in the order in which the guest sees them. */
export async function volumesOf(db: Db, vmId: VmId): Promise<VolumeRecord[]> {
  const rows = await db.volume.findMany({ where: { vmId }, orderBy: [{ position: "asc" }, { name: "asc" }] });
  return rows.map((row) => ({
    id: asId<VolumeId>(row.id),
    hostId: asId<HostId>(row.hostId),
    pool: row.pool,
    name: row.name,
    role: row.role,
    format: row.format as VolumeFormat,
    capacityBytes: Number(row.capacityBytes),
  }));
}

/** The volumes of a VM exist on its host now. */
export async function markVolumesReady(tx: Tx, vmId: VmId): Promise<void> {
  await tx.volume.updateMany({ where: { vmId }, data: { state: "ready" } });
}

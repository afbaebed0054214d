import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import type { ErrorBody } from "../lib/errors.ts";
import type { HostId, ProjectId, VmId, VolumeId } from "../lib/ids.ts";

/** A volume on a host, as its VM's steps need it. Its row is there before the volume is made, and goes after it is gone. */
export interface VolumeRecord {
  readonly id: VolumeId;
  readonly hostId: HostId;
  readonly pool: string;
  /** Its name in the pool. */
  readonly name: string;
  /** `disk:<name>`, `kernel`, `initrd`, `seed`; `none` while it is attached to no VM. */
  readonly role: string;
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
}

/** Role of a volume that is attached to no VM. */
export const FREE_ROLE = "none";

/** Whether it is a disk of its VM: other volumes of a VM are files that it boots with, and its seed. */
export function isDiskRole(role: string): boolean {
  return role.startsWith("disk:");
}

/** Whether it is a disk, or may become one. */
export function holdsDisk(role: string): boolean {
  return role === FREE_ROLE || isDiskRole(role);
}

export type VolumeState = "planned" | "ready" | "failed" | "deleting";

/** What becomes of a volume when its VM is deleted or lets go of it. */
export type DeletePolicy = "delete" | "retain";

/** What a volume was filled from; ids, which outlive what they name. */
export type VolumeSource =
  | { readonly kind: "empty" }
  | { readonly kind: "image"; readonly image: string }
  | { readonly kind: "volume"; readonly volume: string };

/** A volume with all that the API shows of it. */
export interface VolumeDetails extends VolumeRecord {
  readonly projectId: ProjectId;
  /** Its name as a resource; null: it was made with its VM. */
  readonly ownName: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly hostName: string;
  readonly vm: { readonly id: VmId; readonly name: string; readonly phase: string } | null;
  readonly position: number;
  readonly allocationBytes: number | null;
  readonly observedAt: Date | null;
  readonly state: VolumeState;
  readonly error: ErrorBody | null;
  readonly deletePolicy: DeletePolicy;
  readonly source: VolumeSource;
  readonly orphanSince: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** How a volume is called in messages. */
export function volumeLabel({ ownName, id }: Pick<VolumeDetails, "ownName" | "id">): string {
  return `"${ownName ?? id}"`;
}

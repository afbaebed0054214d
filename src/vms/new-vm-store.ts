import { Prisma } from "../db/generated/client.ts";
import type { Tx } from "../db/transaction.ts";
import { insertEvents, vmEventRows } from "../events/event-store.ts";
import type { GuestType, Hypervisor } from "../hypervisors/hypervisor.ts";
import type { HostId, HostImageId, ImageId, OperationId, ProjectId, VmId, VolumeId } from "../lib/ids.ts";
import type { NewVolume } from "../volumes/volume-store.ts";
import { insertNicParts, type NicRow } from "./vm-nic-store.ts";
import type { VmSpec } from "./vm-record.ts";
import type { Reservation } from "./vm-store.ts";

interface NewVm {
  readonly id: VmId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: VmSpec;
  readonly hostId: HostId;
  readonly domainName: string;
  readonly hypervisor: Hypervisor;
  readonly guestType: GuestType;
  readonly pool: string;
}

/** Everything that is written of a new VM. */
export interface NewVmParts {
  readonly vm: NewVm;
  readonly reservation: Reservation;
  readonly volumes: readonly NewVolume[];
  /** The copies on the host that its volumes are made of. */
  readonly copies: readonly { readonly volumeId: VolumeId; readonly hostImageId: HostImageId }[];
  readonly images: readonly { readonly role: string; readonly imageId: ImageId }[];
  readonly nics: readonly NicRow[];
  /** The sealed files of its seed; null: it has none. */
  readonly seed: Uint8Array<ArrayBuffer> | null;
  /** The host's name, for the event. */
  readonly hostName: string;
  /** What makes it. */
  readonly operationId: OperationId;
}

/**
 * Writes a new VM in phase `provisioning` with its reservation, volumes, images, NICs and seed, and tells it, in one
 * statement. A taken name or MAC address is a unique violation, an image that is gone a foreign key's.
 */
export async function insertVm(
  tx: Tx,
  { vm, reservation, volumes, copies, images, nics, seed, hostName, operationId }: NewVmParts,
): Promise<void> {
  const data = Prisma.sql`jsonb_build_object('host', ${hostName}::text)`;
  const parts = [
    Prisma.sql`v AS (
      INSERT INTO vm (id, project_id, name, labels, spec, phase, host_id, domain_uuid, domain_name, hypervisor, guest_type,
                      pool, updated_at)
      VALUES (${vm.id}::uuid, ${vm.projectId}::uuid, ${vm.name}, ${JSON.stringify(vm.labels)}::jsonb,
              ${JSON.stringify(vm.spec)}::jsonb, 'provisioning', ${vm.hostId}::uuid, ${vm.id}::uuid, ${vm.domainName},
              ${vm.hypervisor}, ${vm.guestType}, ${vm.pool}, clock_timestamp()) RETURNING id, name, project_id, host_id, pool)`,
    Prisma.sql`r AS (
      INSERT INTO reservation (vm_id, host_id, cpu_count, memory_mib)
      SELECT id, host_id, ${reservation.cpuCount}::int, ${reservation.memoryMib}::int FROM v)`,
    ...(volumes.length === 0 ? [] : [insertVolumes(volumes)]),
    ...(copies.length === 0 ? [] : [insertCopyUses(copies)]),
    ...(images.length === 0 ? [] : [insertImageUses(images)]),
    ...insertNicParts(nics),
    ...(seed === null ? [] : [insertSeed(seed)]),
  ];
  await tx.$executeRaw`
    WITH ${Prisma.join(parts, ", ")}
    ${insertEvents([vmEventRows("vm.created", Prisma.sql`v AS c`, operationId, data)])}`;
}

// Rows that stand in one statement with the VM's own, as `v`.

function insertVolumes(volumes: readonly NewVolume[]): Prisma.Sql {
  return Prisma.sql`l AS (
    INSERT INTO volume (id, project_id, vm_id, host_id, pool, name, role, position, format, capacity_bytes, delete_policy)
    SELECT n.id, v.project_id, v.id, v.host_id, v.pool, n.name, n.role, n.position, n.format, n."capacityBytes",
      n."deletePolicy"
    FROM v, jsonb_to_recordset(${JSON.stringify(volumes)}::jsonb)
      AS n(id uuid, name text, role text, position int, format text, "capacityBytes" bigint,
           "deletePolicy" text))`;
}

function insertCopyUses(copies: NewVmParts["copies"]): Prisma.Sql {
  return Prisma.sql`h AS (
    INSERT INTO host_image_use (volume_id, host_image_id) SELECT n."volumeId", n."hostImageId"
    FROM v, jsonb_to_recordset(${JSON.stringify(copies)}::jsonb) AS n("volumeId" uuid, "hostImageId" uuid))`;
}

function insertImageUses(uses: NewVmParts["images"]): Prisma.Sql {
  return Prisma.sql`u AS (
    INSERT INTO vm_image (vm_id, role, image_id) SELECT v.id, n.role, n."imageId"
    FROM v, jsonb_to_recordset(${JSON.stringify(uses)}::jsonb) AS n(role text, "imageId" uuid))`;
}

function insertSeed(sealed: Uint8Array<ArrayBuffer>): Prisma.Sql {
  return Prisma.sql`s AS (INSERT INTO vm_seed (vm_id, files) SELECT v.id, ${sealed}::bytea FROM v)`;
}

import { Prisma } from "../../db/generated/client.ts";
import type { Tx } from "../../db/transaction.ts";
import type { VmId, VolumeId } from "../../lib/ids.ts";
import { FREE_ROLE } from "../../volumes/volume-record.ts";
import type { VmDiskSpec } from "../vm-record.ts";

/** Changes of what disks a VM has: its spec, its definition's revision and the volumes' rows in one. */

/** What the domain was just defined with, where it was; a guest that runs got the disk alone. */
export interface DefinedSize {
  readonly cpuCount: number;
  readonly memoryMib: number;
}

// The definition is as current as it was, and current where it was just written with what the spec says.
function observedGeneration(defined: DefinedSize | null): Prisma.Sql {
  const isWritten =
    defined === null
      ? Prisma.sql`false`
      : Prisma.sql`((spec->'cpu'->>'count')::int = ${defined.cpuCount}::int AND (spec->>'memoryMib')::int = ${defined.memoryMib}::int)`;
  return Prisma.sql`CASE WHEN observed_generation = generation OR ${isWritten} THEN generation + 1 ELSE observed_generation END`;
}

async function changeDisks(
  tx: Tx,
  vmId: VmId,
  disks: Prisma.Sql,
  defined: DefinedSize | null,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE vm SET spec = jsonb_set(spec, '{disks}', ${disks}), observed_generation = ${observedGeneration(defined)},
      generation = generation + 1, updated_at = clock_timestamp()
    WHERE id = ${vmId}::uuid`;
}

/** The VM has the volume as a disk, behind those that it has. */
export async function recordAttached(
  tx: Tx,
  vmId: VmId,
  volumeId: VolumeId,
  disk: VmDiskSpec,
  defined: DefinedSize | null,
): Promise<void> {
  await tx.$executeRaw`
    UPDATE volume SET vm_id = ${vmId}::uuid, role = ${`disk:${disk.name}`}, state = 'ready', image_id = NULL,
      position = (SELECT coalesce(max(position) + 1, 0) FROM volume WHERE vm_id = ${vmId}::uuid),
      orphan_since = NULL, updated_at = clock_timestamp()
    WHERE id = ${volumeId}::uuid`;
  await changeDisks(tx, vmId, Prisma.sql`spec->'disks' || ${JSON.stringify([disk])}::jsonb`, defined);
}

/** The VM has the disk no more; the volume belongs to nobody, or is about to be deleted. */
export async function recordDetached(
  tx: Tx,
  { vmId, volumeId, disk }: { readonly vmId: VmId; readonly volumeId: VolumeId; readonly disk: string },
  goes: boolean,
  defined: DefinedSize | null,
): Promise<void> {
  const role = `disk:${disk}`;
  await tx.$executeRaw`
    UPDATE volume SET vm_id = NULL, role = ${FREE_ROLE}, position = 0, state = ${goes ? "deleting" : "ready"},
      source = coalesce((SELECT jsonb_build_object('kind', 'image', 'image', u.image_id)
                         FROM vm_image u WHERE u.vm_id = ${vmId}::uuid AND u.role = ${role}), source),
      updated_at = clock_timestamp()
    WHERE id = ${volumeId}::uuid`;
  await tx.$executeRaw`DELETE FROM vm_image WHERE vm_id = ${vmId}::uuid AND role = ${role}`;
  const others = Prisma.sql`coalesce((SELECT jsonb_agg(d ORDER BY n)
    FROM jsonb_array_elements(spec->'disks') WITH ORDINALITY AS e(d, n) WHERE d->>'name' <> ${disk}), '[]')`;
  await changeDisks(tx, vmId, others, defined);
}

/** The volume has this capacity, and where it is a VM's disk, the spec says so. */
export async function recordResized(tx: Tx, volumeId: VolumeId, capacityBytes: number): Promise<void> {
  await tx.$executeRaw`
    UPDATE volume SET capacity_bytes = ${capacityBytes}, updated_at = clock_timestamp()
    WHERE id = ${volumeId}::uuid`;
  const sizeGib = Math.ceil(capacityBytes / 2 ** 30);
  await tx.$executeRaw`
    UPDATE vm SET generation = vm.generation + 1, updated_at = clock_timestamp(),
      observed_generation = CASE WHEN vm.observed_generation = vm.generation THEN vm.generation + 1
                                 ELSE vm.observed_generation END,
      spec = jsonb_set(vm.spec, '{disks}', (
        SELECT coalesce(jsonb_agg(CASE WHEN 'disk:' || (d->>'name') = l.role AND d->>'volume' IS NULL
          THEN d || jsonb_build_object('sizeGib', ${sizeGib}::int) ELSE d END ORDER BY n), '[]')
        FROM jsonb_array_elements(vm.spec->'disks') WITH ORDINALITY AS e(d, n)))
    FROM volume l WHERE l.id = ${volumeId}::uuid AND vm.id = l.vm_id AND l.role LIKE 'disk:%'`;
}

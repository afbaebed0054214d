import { z } from "zod";
import {
  type DiskHotplugAbility,
  type DomainDisk,
  HypervisorError,
  type ObservedDomain,
} from "../../hypervisors/hypervisor.ts";
import { DroverError } from "../../lib/errors.ts";
import { asId, type VolumeId } from "../../lib/ids.ts";
import type { JsonObject } from "../../lib/json.ts";
import type { StepContext } from "../../operations/operation-kind.ts";
import type { VolumeRecord } from "../../volumes/volume-record.ts";
import { getVolume } from "../../volumes/volume-store.ts";
import {
  answeredSoon,
  hostOf,
  isOn,
  observeForCertain,
  readDomainSpec,
  sizeOf,
  VmInput,
} from "../vm-steps.ts";
import type { DefinedSize } from "./disk-store.ts";

/** What the steps share that change a VM's disks. */

export const DiskInput = VmInput.extend({
  volumeId: z.guid().transform((id) => asId<VolumeId>(id)),
  /** The disk's name. */
  disk: z.string(),
});
export type DiskInput = z.output<typeof DiskInput>;

const Changed = z.object({
  defined: z.object({ cpuCount: z.int(), memoryMib: z.int() }).nullable(),
});

/** What a step that changed disks says: how the domain was defined, where it was off. */
export function changed(defined: DefinedSize | null): JsonObject {
  return { defined: defined === null ? null : { ...defined } };
}

export function definedIn(result: JsonObject | undefined): DefinedSize | null {
  return Changed.parse(result).defined;
}

/** Throws `not_found`. */
export async function volumeOf(context: StepContext<DiskInput>): Promise<VolumeRecord> {
  const { volumeId } = context.operation.input;
  const volume = await context.read((db) => getVolume(db, volumeId));
  if (volume !== null) return volume;
  throw new DroverError("not_found", `The volume ${volumeId} does not exist any more.`);
}

export function domainDisk(name: string, { pool, name: file, format }: VolumeRecord): DomainDisk {
  return { name, kind: "disk", volume: { pool, name: file }, format };
}

/** The domain as it is now. Refuses one whose memory is saved: that belongs to the disks that it was saved with. */
export async function observeForDisks(context: StepContext<DiskInput>): Promise<ObservedDomain | null> {
  const domain = await observeForCertain(context);
  if (domain?.power !== "saved") return domain;
  throw new DroverError(
    "invalid_state",
    "The VM is saved: its memory knows the disks that it was saved with. Restore it, or throw the memory away with a forced stop.",
  );
}

/** Throws HypervisorError `unsupported`. */
export function hotplugOf(context: StepContext<DiskInput>): DiskHotplugAbility {
  const { diskHotplug } = hostOf(context);
  if (diskHotplug !== undefined) return diskHotplug;
  throw new HypervisorError(
    "unsupported",
    "the host cannot change the disks of a guest that runs: stop the VM first",
  );
}

/** Defines the domain, which is off, with the disks that it is to have. */
export async function defineWith(
  context: StepContext<DiskInput>,
  disksOf: (disks: readonly DomainDisk[]) => readonly DomainDisk[],
): Promise<DefinedSize> {
  const { vm, spec } = await readDomainSpec(context);
  await hostOf(context).defineDomain({ ...spec, disks: disksOf(spec.disks) }, answeredSoon(context).call);
  const { cpuCount, memoryMib } = sizeOf(vm);
  return { cpuCount, memoryMib };
}

export function isRunning(domain: ObservedDomain | null): boolean {
  return isOn(domain?.power);
}

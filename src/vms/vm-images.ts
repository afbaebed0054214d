import type { Tx } from "../db/transaction.ts";
import type { VolumeFormat } from "../hypervisors/hypervisor.ts";
import { type CachedContent, cachedContent } from "../image-cache/host-image.ts";
import type { ImageRecord } from "../images/image-record.ts";
import { findImage } from "../images/image-store.ts";
import { DroverError } from "../lib/errors.ts";
import type { ImageId, ProjectId } from "../lib/ids.ts";
import { GIB } from "../lib/units.ts";
import type { DeletePolicy } from "../volumes/volume-record.ts";
import type { NewVm } from "./vm-schemas.ts";

/** A volume that a new VM will have, before it has a place. */
export interface PlannedVolume {
  /** `kernel`, `initrd`, `disk:<name>` or `seed`. */
  readonly role: string;
  readonly format: VolumeFormat;
  readonly capacityBytes: number;
  readonly imageId: ImageId | null;
  readonly deletePolicy: DeletePolicy;
  /** What it is filled with, as hosts keep it; null for what no image fills. */
  readonly content: CachedContent | null;
}

/**
 * What a new VM needs in volumes: its kernel and initrd, then its disks in their order. Throws DroverError
 * `invalid_request` where an image is unknown, of another kind, or larger than the disk; `image_not_ready`.
 */
export async function planVolumes(
  tx: Tx,
  projectId: ProjectId,
  spec: NewVm["spec"],
): Promise<PlannedVolume[]> {
  const volumes: PlannedVolume[] = [];
  if ("kernel" in spec.boot) {
    volumes.push(await bootFile(tx, projectId, "kernel", spec.boot.kernel));
    if (spec.boot.initrd !== undefined)
      volumes.push(await bootFile(tx, projectId, "initrd", spec.boot.initrd));
  }
  for (const [index, disk] of spec.disks.entries()) {
    const pointer = `/spec/disks/${index}`;
    const role = `disk:${disk.name}`;
    const askedBytes = disk.sizeGib === undefined ? null : disk.sizeGib * GIB;
    const { deletePolicy = "delete" } = disk;
    if (disk.image === undefined) {
      const capacityBytes = askedBytes ?? GIB;
      volumes.push({ role, format: "qcow2", capacityBytes, imageId: null, content: null, deletePolicy });
      continue;
    }
    const image = await imageOf(tx, projectId, disk.image, "disk", `${pointer}/image`);
    const needed = image.content?.virtualSizeBytes ?? 0;
    if (askedBytes !== null && askedBytes < needed) {
      const atLeast = Math.ceil(needed / GIB);
      throw wrong(`${pointer}/sizeGib`, `image "${image.name}" needs ${atLeast} GiB at least`);
    }
    volumes.push({
      role,
      format: image.format ?? "raw",
      capacityBytes: askedBytes ?? needed,
      imageId: image.id,
      deletePolicy,
      content: cachedContent(image),
    });
  }
  return volumes;
}

async function bootFile(
  tx: Tx,
  projectId: ProjectId,
  role: "kernel" | "initrd",
  name: string,
): Promise<PlannedVolume> {
  const image = await imageOf(tx, projectId, name, role, `/spec/boot/${role}`);
  const capacityBytes = image.content?.sizeBytes ?? 0;
  const content = cachedContent(image);
  return { role, format: "raw", capacityBytes, imageId: image.id, content, deletePolicy: "delete" };
}

async function imageOf(
  tx: Tx,
  projectId: ProjectId,
  name: string,
  kind: ImageRecord["kind"],
  pointer: string,
): Promise<ImageRecord> {
  const image = await findImage(tx, projectId, name);
  if (image === null) throw wrong(pointer, `there is no image "${name}"`);
  if (image.kind !== kind)
    throw wrong(pointer, `image "${image.name}" is of kind ${image.kind}, ${kind} is needed`);
  if (image.state === "ready" && image.content !== null) return image;
  const what =
    image.state === "failed"
      ? "its import failed: delete it and import it again"
      : "it is still being imported: wait for its operation";
  throw new DroverError("image_not_ready", `Image "${image.name}" cannot be used: ${what}.`);
}

/** A value that is well-formed and still cannot be: named by its JSON pointer. */
export function wrong(pointer: string, message: string): DroverError {
  return new DroverError("invalid_request", `${pointer}: ${message}.`, {
    violations: [{ pointer, message }],
  });
}

import { z } from "zod";
import { IdOrName } from "../../http/schemas.ts";
import { DeletePolicyName, SizeGib } from "../../volumes/volume-schemas.ts";
import { DeviceName } from "../vm-schemas.ts";

/** The API's shapes of disks that come and go. */

export const AttachDiskBody = z
  .strictObject({
    name: DeviceName.meta({ description: "Unique in the VM; the guest sees it as the disk's serial." }),
    volume: IdOrName.optional().meta({
      description: "A volume on the VM's host that no VM has. Without: a new one is made.",
    }),
    image: IdOrName.optional().meta({ description: "An image of kind disk that a new one is filled from." }),
    sizeGib: SizeGib.optional().meta({ description: "Of a new one; as large as the image without." }),
    deletePolicy: DeletePolicyName.optional().meta({
      description: "Of a new one: `delete` without. A volume that is there already keeps its own.",
    }),
  })
  .refine(
    ({ volume, image, sizeGib, deletePolicy }) =>
      volume === undefined || [image, sizeGib, deletePolicy].every((value) => value === undefined),
    { path: ["volume"], message: "a volume that is there already takes no image, size or delete policy" },
  )
  .refine(({ volume, image, sizeGib }) => [volume, image, sizeGib].some((value) => value !== undefined), {
    path: ["volume"],
    message: "name a volume, or say what a new one is to be: image, sizeGib",
  })
  .meta({
    id: "AttachDiskBody",
    examples: [
      { name: "data", volume: "data-1" },
      { name: "scratch", sizeGib: 20 },
    ],
  });
export type AttachDiskBody = z.output<typeof AttachDiskBody>;

export const detachDiskQuery = {
  timeoutSeconds: z
    .preprocess(
      (value) => (typeof value === "string" && /^\d{1,4}$/.test(value) ? Number(value) : value),
      z.int().min(1).max(600),
    )
    .default(60)
    .meta({ description: "How long a running guest may take to let go of the disk." }),
};

export const ResizeVolumeBody = z
  .strictObject({ sizeGib: SizeGib.meta({ description: "Not smaller than it is." }) })
  .meta({ id: "ResizeVolumeBody", examples: [{ sizeGib: 40 }] });

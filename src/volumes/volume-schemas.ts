import { z } from "zod";
import { LabelSelector, Labels, LabelsPatch } from "../http/labels.ts";
import { orderByQuery, pageOf, pageQuery } from "../http/pagination.ts";
import { ErrorBodySchema } from "../http/problem.ts";
import { Id, IdOrName, Name, plainText, QueryBoolean, Timestamp } from "../http/schemas.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";

/** The API's shapes of a volume. */

export const DeletePolicyName = z.enum(["delete", "retain"]).meta({
  id: "DeletePolicy",
  description: "What becomes of the volume when its VM is deleted or lets go of it.",
});

const PoolName = plainText({ max: 64 });

const VolumeSourceSchema = z
  .discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("empty") }),
    z.strictObject({ kind: z.literal("image"), image: Id }),
    z.strictObject({ kind: z.literal("volume"), volume: Id }),
  ])
  .meta({ id: "VolumeSource", description: "What it was filled from; that may be gone by now." });

export const VolumeSchema = z
  .strictObject({
    id: Id,
    name: Name.nullable().meta({ description: "Null: it was made with its VM, and has its id only." }),
    project: z.string(),
    labels: Labels,
    generation: z.int(),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    deletePolicy: DeletePolicyName,
    source: VolumeSourceSchema,
    state: z
      .enum(["creating", "ready", "failed", "deleting"])
      .meta({ description: "`failed`: there is nothing on the host; delete it." }),
    error: ErrorBodySchema.nullable().meta({ description: "Why it failed." }),
    host: z.string(),
    pool: z.string(),
    nameInPool: z.string().meta({ description: "How the host calls it." }),
    format: z.enum(["raw", "qcow2"]),
    capacityBytes: z.int().meta({ description: "The size of the disk that a guest sees." }),
    allocationBytes: z
      .int()
      .nullable()
      .meta({ description: "What it takes of its pool, as last seen; null until it was looked at." }),
    observedAt: Timestamp.nullable().meta({ description: "When its sizes were last seen." }),
    vm: z
      .strictObject({ id: Id, name: z.string() })
      .nullable()
      .meta({ description: "The VM that it is attached to." }),
    role: z
      .enum(["disk", "kernel", "initrd", "seed"])
      .nullable()
      .meta({ description: "What it is for its VM; null while it is attached to none." }),
    disk: z.string().nullable().meta({ description: "The name of the VM's disk that it is." }),
    orphanSince: Timestamp.nullable().meta({
      description:
        "Since when it is known that the host has it and nothing owns it. It is deleted after the grace time, unless it " +
        "is changed or attached before.",
    }),
    operations: z.array(Id).meta({ description: "Its unfinished operations, oldest first." }),
  })
  .meta({ id: "Volume", description: "A disk, or a file that a VM boots with, on a host." });
export type Volume = z.output<typeof VolumeSchema>;

export const VolumeAnswer = z
  .strictObject({ volume: VolumeSchema, operation: OperationSchema })
  .meta({ id: "VolumeAnswer" });

export const VolumePage = pageOf(VolumeSchema).meta({ id: "VolumePage" });

export const listVolumesQuery = {
  ...pageQuery,
  host: IdOrName.optional().meta({ description: "Id or name of the host that they are on." }),
  pool: PoolName.optional(),
  vm: IdOrName.optional().meta({ description: "Id or name of the VM that they are attached to." }),
  attached: QueryBoolean.optional().meta({ description: "Whether they are attached to a VM." }),
  orphan: QueryBoolean.optional().meta({ description: "`true`: what nothing owns." }),
  labelSelector: LabelSelector.optional(),
  orderBy: orderByQuery(["createdAt"], "createdAt"),
};

/** The largest volume that is taken: more than any pool of today has. */
const MAX_VOLUME_GIB = 64 * 1024;
export const SizeGib = z.int().min(1).max(MAX_VOLUME_GIB);

export const CreateVolumeBody = z
  .strictObject({
    name: Name,
    labels: Labels.default({}),
    host: IdOrName.optional().meta({ description: "The only host to consider." }),
    pool: PoolName.optional().meta({
      description: "The only pool to consider, by its name; without: where there is the most room.",
    }),
    sizeGib: SizeGib.optional().meta({ description: "Without: as large as the image." }),
    format: z.enum(["raw", "qcow2"]).optional().meta({ description: "Of an empty volume; `qcow2` without." }),
    source: z
      .discriminatedUnion("kind", [
        z.strictObject({ kind: z.literal("empty") }),
        z.strictObject({
          kind: z.literal("image"),
          image: IdOrName.meta({ description: "An image of kind disk." }),
        }),
      ])
      .default({ kind: "empty" })
      .meta({ id: "NewVolumeSource" }),
    deletePolicy: DeletePolicyName.default("retain"),
  })
  .meta({
    id: "CreateVolumeBody",
    examples: [
      { name: "data-1", sizeGib: 20 },
      { name: "root-1", host: "n1", sizeGib: 10, source: { kind: "image", image: "debian-12" } },
    ],
  });
export type CreateVolumeBody = z.output<typeof CreateVolumeBody>;

export const PatchVolumeBody = z
  .strictObject({ labels: LabelsPatch.optional(), deletePolicy: DeletePolicyName.optional() })
  .meta({ id: "PatchVolumeBody", examples: [{ labels: { tier: "db" }, deletePolicy: "retain" }] });
export type PatchVolumeBody = z.output<typeof PatchVolumeBody>;

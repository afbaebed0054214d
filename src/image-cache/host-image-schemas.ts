import { z } from "zod";
import { ErrorBodySchema } from "../http/problem.ts";
import { Id, Name, Timestamp } from "../http/schemas.ts";
import { HOST_IMAGE_STATES } from "./host-image.ts";

export const HostImageSchema = z
  .strictObject({
    id: Id,
    pool: z.string(),
    sha256: z.string(),
    format: z.enum(["raw", "qcow2"]),
    sizeBytes: z.int(),
    state: z.enum(HOST_IMAGE_STATES).meta({
      description:
        "`ready`: VMs are made of it. `filling` and `evicting`: see `operation`. `absent`: it did not come (`error`), or was given up.",
    }),
    filledBytes: z.int().meta({ description: "How much of it has arrived for certain." }),
    volumeCount: z.int().meta({
      description:
        "Volumes that are being made of it, or read from it for as long as they exist. With any, it stays.",
    }),
    operation: Id.nullable().meta({ description: "What fills or evicts it, or did so last." }),
    error: ErrorBodySchema.nullable(),
    lastUsedAt: Timestamp,
  })
  .meta({ id: "HostImage", description: "The copy of an image's content in a pool of a host." });
export type HostImageView = z.output<typeof HostImageSchema>;

export const BringImageBody = z
  .strictObject({
    image: Id.meta({ description: "Id of an image of any project." }),
    pool: Name.meta({ description: "Name of a pool of the host that holds files." }),
  })
  .meta({ id: "BringImageBody" });

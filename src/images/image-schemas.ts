import { z } from "zod";
import { LabelSelector, Labels, LabelsPatch } from "../http/labels.ts";
import { orderByQuery, pageOf, pageQuery } from "../http/pagination.ts";
import { ErrorBodySchema } from "../http/problem.ts";
import { Id, Name, Timestamp } from "../http/schemas.ts";
import { BuildRecipe, MAX_SIZE_GIB, Mirror, PackageName, Suite } from "./build/build-recipe.ts";
import { IMAGE_FORMATS, IMAGE_KINDS } from "./image-format.ts";
import { IMAGE_STATES } from "./image-record.ts";
import { parseImportUrl } from "./import-url.ts";

const KindSchema = z
  .enum(IMAGE_KINDS)
  .meta({ id: "ImageKind", description: "What a VM uses it as: a disk, or files to boot with." });
const FormatSchema = z.enum(IMAGE_FORMATS).meta({ id: "ImageFormat" });
const StateSchema = z.enum(IMAGE_STATES).meta({ id: "ImageState" });

const Sha256 = z
  .string()
  .regex(/^[0-9a-fA-F]{64}$/, "must be 64 hexadecimal digits")
  .transform((digits) => digits.toLowerCase())
  .meta({
    description: "SHA-256 of the file. The image is refused when its content has another one.",
    examples: ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
  });

const ClaimedFormat = FormatSchema.optional().meta({
  description: "Of a disk; found out where it is left out, and compared with the content where it is given.",
});

const UrlSource = z.strictObject({
  kind: z.literal("url"),
  url: z.string().meta({ description: "Without its query, which may hold a signature." }),
});
const BuiltSource = z.strictObject({ kind: z.literal("debootstrap"), ...BuildRecipe.shape });
const UploadSource = z.strictObject({ kind: z.literal("upload") });

export const ImageSchema = z
  .strictObject({
    id: Id,
    name: Name,
    project: z.string(),
    labels: Labels,
    generation: z.int(),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    kind: KindSchema,
    format: FormatSchema.nullable().meta({
      description: "How a disk's bytes are laid out; null for a boot file.",
    }),
    state: StateSchema,
    error: ErrorBodySchema.nullable().meta({ description: "Why it failed." }),
    sizeBytes: z.int().nullable().meta({ description: "Size of the file; null until it is there." }),
    virtualSizeBytes: z.int().nullable().meta({
      description: "Size of the disk that a guest sees; null for a boot file, and until it is there.",
    }),
    sha256: z.string().nullable().meta({ description: "Null until it is there." }),
    source: z.discriminatedUnion("kind", [UploadSource, UrlSource, BuiltSource]).meta({ id: "ImageSource" }),
    operations: z.array(Id).meta({ description: "Operations under way on it." }),
  })
  .meta({
    id: "Image",
    description: "A file that VMs are made from or boot with. Its content never changes.",
  });

export type Image = z.output<typeof ImageSchema>;

export const ImagePage = pageOf(ImageSchema).meta({ id: "ImagePage" });

const ImportSource = z.strictObject({
  kind: z.literal("url"),
  url: z
    .string()
    .superRefine((text, context) => {
      const parsed = parseImportUrl(text);
      if (!parsed.ok) context.addIssue({ code: "custom", message: parsed.reason });
    })
    .meta({
      description:
        "http or https, without a user name or password. Addresses that are not public are refused.",
      examples: ["https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"],
    }),
  sha256: Sha256.optional(),
});
export type ImportSource = z.output<typeof ImportSource>;

const MAX_PACKAGES = 500;

const BuildSource = z
  .strictObject({
    kind: z.literal("debootstrap"),
    suite: Suite,
    mirror: Mirror.optional(),
    packages: z
      .array(PackageName)
      .max(MAX_PACKAGES)
      .default([])
      .meta({ description: "Installed besides those of every image, with what they depend on." }),
    cloudInit: z
      .boolean()
      .default(true)
      .meta({
        description:
          "With cloud-init (NoCloud), an SSH server, and a root file system that grows with its disk. Without it nobody can " +
          "log in to the guest unless the packages see to that: there is no password in an image.",
      }),
    sizeGib: z
      .int()
      .min(1)
      .max(MAX_SIZE_GIB)
      .optional()
      .meta({
        description: "Size of the disk; as small as the packages allow where it is left out.",
        examples: [4],
      }),
  })
  .meta({
    id: "DebootstrapSource",
    description:
      "Debian, installed by mmdebstrap on the control plane. The disk boots on KVM (BIOS) and on Xen, with a login on the " +
      "serial console.",
  });
export type BuildSource = z.output<typeof BuildSource>;

export const CreateImageBody = z
  .strictObject({
    name: Name,
    kind: KindSchema,
    format: ClaimedFormat,
    labels: Labels.optional(),
    source: z.discriminatedUnion("kind", [ImportSource, BuildSource]),
  })
  .meta({
    id: "CreateImage",
    examples: [
      {
        name: "debian-12",
        kind: "disk",
        source: { kind: "debootstrap", suite: "bookworm", packages: ["curl"] },
      },
    ],
  });
export type CreateImage = z.output<typeof CreateImageBody>;

export const PatchImageBody = z.strictObject({ labels: LabelsPatch.optional() }).meta({
  id: "PatchImage",
  description: "Only labels can be changed: the name and the content are for good.",
});
export type PatchImage = z.output<typeof PatchImageBody>;

export const uploadQuery = {
  kind: KindSchema,
  format: ClaimedFormat,
  sha256: Sha256.optional(),
};

export const listImagesQuery = {
  ...pageQuery,
  name: Name.optional(),
  kind: KindSchema.optional(),
  state: StateSchema.optional(),
  labelSelector: LabelSelector.optional(),
  orderBy: orderByQuery(["name", "createdAt"], "name"),
};

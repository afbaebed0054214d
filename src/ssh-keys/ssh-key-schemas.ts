import { z } from "zod";
import { LabelSelector, Labels, LabelsPatch } from "../http/labels.ts";
import { orderByQuery, pageOf, pageQuery } from "../http/pagination.ts";
import { Id, Name, Timestamp } from "../http/schemas.ts";
import { parsePublicKey } from "./parse-public-key.ts";

/** The API's shapes of an ssh key. */

const EXAMPLE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOrkce8nTqM1B/P9lp7AuBljKLFTml97ssIrWs3E2g/p ada@laptop";

const PublicKeyText = z
  .string()
  .superRefine((text, context) => {
    const parsed = parsePublicKey(text);
    if (!parsed.ok) context.addIssue({ code: "custom", message: parsed.reason });
  })
  .meta({
    description:
      "One line as it stands in a `.pub` file: type, base64 and comment, without options. ed25519, ECDSA, both kinds " +
      "of security key, and RSA from 2048 bits on.",
    examples: [EXAMPLE],
  });

const Fingerprint = z
  .string()
  .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, "must be SHA256: and 43 characters of base64")
  .meta({
    description: "As `ssh-keygen -l` shows it.",
    examples: ["SHA256:yXT1k2grxo7w22mv6pcX08ndLHdxbnnZFme6RKAyB68"],
  });

export const SshKeySchema = z
  .strictObject({
    id: Id,
    name: Name,
    project: z.string(),
    labels: Labels,
    generation: z.int().meta({ description: "Revision of the labels; the ETag." }),
    createdAt: Timestamp,
    updatedAt: Timestamp,
    type: z.string().meta({ examples: ["ssh-ed25519"] }),
    fingerprint: Fingerprint,
    publicKey: z.string().meta({ examples: [EXAMPLE] }),
    comment: z.string(),
  })
  .meta({ id: "SshKey", description: "A public key that new VMs can let in. The key itself never changes." });
export type SshKey = z.output<typeof SshKeySchema>;

export const SshKeyPage = pageOf(SshKeySchema).meta({ id: "SshKeyPage" });

export const CreateSshKeyBody = z
  .strictObject({ name: Name, publicKey: PublicKeyText, labels: Labels.default({}) })
  .meta({ id: "CreateSshKey", examples: [{ name: "ada", publicKey: EXAMPLE }] });
export type CreateSshKey = z.output<typeof CreateSshKeyBody>;

export const PatchSshKeyBody = z.strictObject({ labels: LabelsPatch.optional() }).meta({
  id: "PatchSshKey",
  description: "Only labels can be changed: for another key create another one.",
});
export type PatchSshKey = z.output<typeof PatchSshKeyBody>;

export const listSshKeysQuery = {
  ...pageQuery,
  name: Name.optional(),
  fingerprint: Fingerprint.optional(),
  labelSelector: LabelSelector.optional(),
  orderBy: orderByQuery(["name", "createdAt"], "name"),
};

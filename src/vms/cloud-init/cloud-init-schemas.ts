import { z } from "zod";
import { IdOrName } from "../../http/schemas.ts";
import { conflictOf } from "./conflicts.ts";
import { checkUserData, MAX_TEXT_BYTES, wrongNetworkConfig } from "./user-data.ts";

/** The API's shapes of what a VM is told through cloud-init. */

const MAX_KEYS = 64;
const MAX_USERS = 32;

const Hostname = z
  .string()
  .max(253)
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/,
    "must be a host name in lower case, with or without its domain",
  )
  .meta({ examples: ["web-1.example"] });

const UserName = z
  .string()
  .regex(/^[a-z_][a-z0-9_-]{0,31}$/, "must be the name of a Linux user")
  .refine(
    (name) => name !== "default",
    "must not be `default`, which is the image's own user: sshKeys of cloudInit let in there",
  );

const Keys = z.array(IdOrName).max(MAX_KEYS).meta({ description: "Ids or names of ssh keys." });

const userShape = { name: UserName, sshKeys: Keys, sudo: z.boolean() };
const SUDO = "May become root without a password.";

const NewUser = z
  .strictObject({
    ...userShape,
    sshKeys: Keys.default([]),
    sudo: z.boolean().default(false).meta({ description: SUDO }),
  })
  .meta({ id: "NewCloudInitUser" });

const Text = z.string().nullable().default(null);

const COMBINED =
  "What the guest's cloud-init is told, on a small read-only CD-ROM of its own (data source NoCloud). `userData` " +
  "goes there as it is. The rest becomes meta-data (host name, sshKeys) and vendor-data (users), over which user-data " +
  "has the last word by cloud-init's own rules; where a cloud-config would silently undo a field that is given here, " +
  "the request is refused. Into scripts and MIME messages nobody looks. An empty object gives a host name.";

/** What a create takes. */
export const NewCloudInit = z
  .strictObject({
    hostname: Hostname.optional().meta({ description: "The VM's name without." }),
    sshKeys: Keys.default([]).meta({
      description: "Ids or names of ssh keys that let in as the image's own user. Copied now, once.",
    }),
    users: z
      .array(NewUser)
      .max(MAX_USERS)
      .refine(
        (users) => new Set(users.map(({ name }) => name)).size === users.length,
        "the names must differ",
      )
      .default([])
      .meta({ description: "Users to make beside the image's own, without passwords." }),
    userData: Text.meta({
      description: `A \`#cloud-config\`, a \`#!\` script or a MIME multipart message, at most ${MAX_TEXT_BYTES} bytes. Kept encrypted and never returned: only its digest and size are.`,
    }),
    networkConfig: Text.meta({
      description:
        "cloud-init's network configuration, version 1 or 2, as YAML; without, it asks DHCP on the first NIC. Kept and shown as userData is.",
    }),
  })
  .superRefine((given, context) => {
    const refuse = (field: string, message: string): void => {
      context.addIssue({ code: "custom", path: [field], message });
    };
    if (given.userData !== null) {
      const checked = checkUserData(given.userData);
      const reason = checked.ok ? conflictOf(given, checked.config) : checked.reason;
      if (reason !== null) refuse("userData", reason);
    }
    const wrongNetwork = given.networkConfig === null ? null : wrongNetworkConfig(given.networkConfig);
    if (wrongNetwork !== null) refuse("networkConfig", wrongNetwork);
  })
  .meta({ id: "NewCloudInit", description: COMBINED });
export type NewCloudInit = z.output<typeof NewCloudInit>;

const HiddenText = z
  .strictObject({ sha256: z.string(), sizeBytes: z.int() })
  .meta({ id: "HiddenText", description: "What stands for a text that may hold secrets." });

/** What the API shows of it. */
export const CloudInitSchema = z
  .strictObject({
    hostname: z.string(),
    sshKeys: Keys,
    users: z.array(z.strictObject(userShape).meta({ id: "CloudInitUser" })),
    userData: HiddenText.nullable(),
    networkConfig: HiddenText.nullable(),
  })
  .meta({ id: "CloudInit" });
export type CloudInit = z.output<typeof CloudInitSchema>;

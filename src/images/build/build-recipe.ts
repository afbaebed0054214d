import { z } from "zod";
import { parseImportUrl } from "../import-url.ts";

/** What a Debian image is built from. Every word of it becomes an argument of a program or a line of a file there. */

/** A release by its code name or its standing, such as bookworm, stable or sid. */
export const Suite = z
  .string()
  .max(40)
  .regex(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/, "must be the name of a Debian suite, such as bookworm")
  .meta({ description: "A Debian suite: bookworm or newer, or sid.", examples: ["bookworm"] });

/**
 * Debian Policy 5.6.1. A hyphen at the end would be an order to apt to remove the package, and apt takes what holds
 * other characters for a pattern.
 */
export const PackageName = z
  .string()
  .max(100)
  .regex(/^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$/, "must be the name of a Debian package, such as curl")
  .meta({ examples: ["curl"] });

// A mirror becomes a line of the image's sources.list, where spaces and brackets have a meaning.
const MIRROR = /^https?:\/\/(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?(\/[A-Za-z0-9._~%+,=@-]*)*$/;

export const Mirror = z
  .string()
  .superRefine((text, context) => {
    const parsed = parseImportUrl(text);
    if (!parsed.ok) context.addIssue({ code: "custom", message: parsed.reason });
    else if (parsed.url.search !== "" || !MIRROR.test(parsed.url.href))
      context.addIssue({ code: "custom", message: "must be the plain URL of a mirror, without a query" });
  })
  .meta({
    description:
      "A Debian mirror, http or https; addresses that are not public are refused. Everything comes from it, and only the " +
      "suite itself. Without: the mirror of the control plane's own apt, else Debian's own, with the suite's updates " +
      "and security updates.",
    examples: ["https://mirror.example/debian/"],
  });

export const MAX_SIZE_GIB = 1024;

const DETAILS = {
  suite: Suite,
  mirror: Mirror.nullable(),
  packages: z.array(PackageName),
  cloudInit: z.boolean(),
  sizeGib: z.int().nullable(),
};

/** As it is kept and shown: what was left out stands as null or as its default. */
export const BuildRecipe = z.strictObject(DETAILS);
export type BuildRecipe = Readonly<Omit<z.output<typeof BuildRecipe>, "packages">> & {
  readonly packages: readonly string[];
};

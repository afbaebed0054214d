import type { YamlMap } from "./user-data.ts";

/** Where a cloud-config would undo, without a word, what was asked for beside it. Pure. */

/** The fields of a create that a cloud-config can undo. */
interface Asked {
  readonly hostname?: string | undefined;
  readonly sshKeys: readonly unknown[];
  readonly users: readonly unknown[];
}

const HOST_NAME_KEYS = ["hostname", "fqdn", "preserve_hostname"] as const;
const ONE_PLACE = "give them in one place";

/** Why user-data and fields do not go together; null where they do, or where nobody looks into the user-data. */
export function conflictOf({ hostname, sshKeys, users }: Asked, config: YamlMap | null): string | null {
  if (config === null) return null;
  const hostKey = HOST_NAME_KEYS.find((key) => config.has(key));
  if (hostname !== undefined && hostKey !== undefined)
    return `sets ${hostKey}, and hostname of cloudInit is given too: leave one of them out`;
  if (users.length > 0 && config.has("users")) return `has users, and so has cloudInit: ${ONE_PLACE}`;
  if (users.length > 0 && config.has("vendor_data"))
    return `sets vendor_data, through which users of cloudInit come: ${ONE_PLACE}`;
  if (sshKeys.length > 0 && config.has("users") && !namesDefault(config.get("users")))
    return "has users without `default`, so nobody would be let in by sshKeys of cloudInit: add `default`, or leave sshKeys out";
  return null;
}

/** Whether a cloud-config's users keep the image's own one: as text, list or mapping. */
function namesDefault(users: unknown): boolean {
  if (typeof users === "string") return users.split(/[\s,]+/).includes("default");
  if (users instanceof Map) return users.has("default");
  return (
    Array.isArray(users) &&
    users.some((user) => user === "default" || (user instanceof Map && user.get("name") === "default"))
  );
}

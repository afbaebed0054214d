import { type InstallationId, isUuid } from "../lib/ids.ts";

/**
 * Names of volumes in their pools: `drover-<mark>-<id>-<what>.<suffix>`. A pool keeps nothing of a volume but its name
 * and its bytes, so the name says whose it is: the mark is this installation's, the id that of the VM or volume that it
 * was made for. Both are random enough never to be met twice.
 */

const MARK_LENGTH = 12;

function markOf(installationId: InstallationId): string {
  return installationId.slice(-MARK_LENGTH);
}

/** What the names of all volumes that were made for one owner have in common. */
export function volumePrefix(installationId: InstallationId, ownerId: string): string {
  return `${installationPrefix(installationId)}${ownerId}-`;
}

/** What the names of all volumes of an installation have in common. */
export function installationPrefix(installationId: InstallationId): string {
  return `drover-${markOf(installationId)}-`;
}

/** The name of a volume: `what` tells apart those of one owner, such as `disk-root`. */
export function volumeName(
  installationId: InstallationId,
  ownerId: string,
  what: string,
  suffix: string,
): string {
  return `${volumePrefix(installationId, ownerId)}${what}.${suffix}`;
}

const REST = /^([0-9a-f-]{36})-(disk-[a-z0-9-]+|kernel|initrd|seed|volume)\.(qcow2|raw|boot|iso)$/;

/** What a volume of this installation was made for, by its name; null for a name that is not exactly one of ours. */
export function ownerInName(installationId: InstallationId, name: string): string | null {
  const prefix = installationPrefix(installationId);
  if (!name.startsWith(prefix)) return null;
  const ownerId = REST.exec(name.slice(prefix.length))?.[1] ?? "";
  return isUuid(ownerId) ? ownerId : null;
}

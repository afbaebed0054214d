import { asId, type InstallationId, newId, type ProjectId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { DatabaseSetupError } from "./setup-error.ts";
import type { Db, Tx } from "./transaction.ts";

export interface Installation {
  readonly id: InstallationId;
  /** True in the one transaction that makes it. */
  readonly isNew: boolean;
}

const CHECK = "drover secret key check";

/**
 * Makes the installation's row and its default project at the first start, and checks at every later one that this
 * process has the same secret key. Throws DatabaseSetupError where it has another.
 */
export async function ensureInstallation(tx: Tx, box: SecretBox): Promise<Installation> {
  // Two first starts at once: the second waits here and then finds the row.
  await tx.$executeRaw`LOCK TABLE installation IN EXCLUSIVE MODE`;
  const present = await tx.installation.findFirst();
  if (present === null) {
    const id = newId<InstallationId>();
    await tx.installation.create({ data: { id, secretKeyCheck: box.seal(CHECK) } });
    await tx.project.create({ data: { id: newId<ProjectId>(), name: "default" } });
    return { id, isNew: true };
  }
  if (!opens(box, present.secretKeyCheck)) {
    throw new DatabaseSetupError(
      "this database was set up with another secret key: give all processes the DROVER_SECRET_KEY, or the data directory's secret.key, of the first one",
    );
  }
  return { id: asId<InstallationId>(present.id), isNew: false };
}

function opens(box: SecretBox, sealed: Uint8Array): boolean {
  try {
    return box.open(sealed) === CHECK;
  } catch {
    return false;
  }
}

/** The id that every domain and volume of ours carries. */
export async function installationIdOf(db: Db): Promise<InstallationId> {
  const row = await db.installation.findFirstOrThrow({ select: { id: true } });
  return asId<InstallationId>(row.id);
}

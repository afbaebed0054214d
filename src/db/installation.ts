import { asId, type InstallationId, newId, type ProjectId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { DatabaseSetupError } from "./setup-error.ts";
import type { Db, Tx } from "./transaction.ts";

export interface Installation {
  readonly id: InstallationId;
  readonly defaultProjectId: ProjectId;
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
  const row =
    present ??
    (await tx.installation.create({
      data: { id: newId<InstallationId>(), secretKeyCheck: box.seal(CHECK) },
    }));
  if (!opens(box, row.secretKeyCheck)) {
    throw new DatabaseSetupError(
      "this database was set up with another secret key: give all processes the DROVER_SECRET_KEY, or the data directory's secret.key, of the first one",
    );
  }
  const project = await tx.project.upsert({
    where: { name: "default" },
    create: { id: newId<ProjectId>(), name: "default" },
    update: {},
  });
  return { id: asId<InstallationId>(row.id), defaultProjectId: asId<ProjectId>(project.id) };
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

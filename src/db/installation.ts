import { asId, type InstallationId, newId, type ProjectId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { DatabaseSetupError } from "./setup-error.ts";
import type { Tx } from "./transaction.ts";

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
  const [present] = await tx.$queryRaw<{ id: string; secretKeyCheck: Uint8Array }[]>`
    SELECT id, secret_key_check AS "secretKeyCheck" FROM installation`;
  if (present === undefined) {
    const id = newId<InstallationId>();
    await tx.$executeRaw`INSERT INTO installation (id, secret_key_check) VALUES (${id}::uuid, ${box.seal(CHECK)})`;
    await tx.$executeRaw`INSERT INTO project (id, name) VALUES (${newId<ProjectId>()}::uuid, 'default')`;
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

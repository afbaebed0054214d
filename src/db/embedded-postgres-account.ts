import { readFileSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname } from "node:path";
import { DatabaseSetupError } from "./setup-error.ts";

/** Who the server's processes run as. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
  /** Null where the machine has no name for the uid. */
  readonly name: string | null;
  /** True when it is not us: we are root, which Postgres refuses to run as. */
  readonly foreign: boolean;
}

/** By preference; every Linux has the second. */
const UNPRIVILEGED = ["postgres", "nobody"];

/**
 * The account for a cluster: ours, or as root the owner of the cluster that is there, or an unprivileged one.
 * `clusterDirectory` need not exist. Throws a DatabaseSetupError when the cluster is another user's.
 */
export function accountFor(clusterDirectory: string): Account {
  const owner = statSync(clusterDirectory, { throwIfNoEntry: false });
  const us = userInfo();
  if (us.uid !== 0) {
    if (owner !== undefined && owner.uid !== us.uid)
      throw new DatabaseSetupError(
        `The database in ${clusterDirectory} belongs to uid ${owner.uid}, and this process runs as ${us.username}. Run Drover as the user that made it, or set DROVER_DATA_DIR to another directory.`,
      );
    return { uid: us.uid, gid: us.gid, name: us.username, foreign: false };
  }
  const known = readAccounts();
  if (owner !== undefined && owner.uid !== 0)
    return {
      uid: owner.uid,
      gid: owner.gid,
      name: known.find(({ uid }) => uid === owner.uid)?.name ?? null,
      foreign: true,
    };
  for (const name of UNPRIVILEGED) {
    const account = known.find((candidate) => candidate.name === name);
    if (account !== undefined) return { ...account, foreign: true };
  }
  throw new DatabaseSetupError(
    "Postgres does not run as root, and there is no account `postgres` or `nobody` for it. Add one, or set DATABASE_URL.",
  );
}

function readAccounts(): readonly { readonly name: string; readonly uid: number; readonly gid: number }[] {
  return readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .flatMap((line) => {
      const [name, , uid, gid] = line.split(":");
      return name === undefined || uid === undefined || gid === undefined
        ? []
        : [{ name, uid: Number(uid), gid: Number(gid) }];
    });
}

/** The nearest directory above `path` (itself left out) that the account may not pass through; null: none. */
export function blockingDirectory(path: string, account: Account): string | null {
  const parent = dirname(path);
  if (parent === path) return null;
  const { mode, uid, gid } = statSync(parent);
  const searchBit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
  return (mode & searchBit) === 0 ? parent : blockingDirectory(parent, account);
}

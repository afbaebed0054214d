import { randomUUID } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Account, accountFor, blockingDirectory } from "./embedded-postgres-account.ts";
import { DatabaseSetupError } from "./setup-error.ts";

/**
 * Where everything lies, below `postgres/` in Drover's data directory. The lock files, `location` and
 * `socket-directory` always lie there; the rest lies in `home`, which is the same directory unless the server's
 * account cannot reach it.
 */
export interface Layout {
  readonly base: string;
  /** Held while starting and stopping. */
  readonly startLock: string;
  /** Shared by every process that uses the server. */
  readonly usersLock: string;
  readonly home: string;
  /** The cluster (PGDATA), readable by the account alone. */
  readonly cluster: string;
  readonly log: string;
  readonly account: Account;
}

// sockaddr_un holds 108 bytes, the last of them zero.
const MAX_SOCKET_PATH_BYTES = 107;
const SOCKET_NAME = ".s.PGSQL.5432";
// Where a cluster goes whose data directory lies behind a directory closed to its account, such as root's home.
const OUTSIDE = "/var/lib/drover-postgres";

/** Makes the directory that holds the locks. Nothing else may be touched before the start lock is held. */
export function lockPaths(dataDir: string): Pick<Layout, "base" | "startLock" | "usersLock"> {
  mkdirSync(resolve(dataDir), { recursive: true, mode: 0o700 });
  const base = join(realpathSync(dataDir), "postgres");
  const locks = join(base, "locks");
  mkdirSync(locks, { recursive: true, mode: 0o700 });
  return { base, startLock: join(locks, "start"), usersLock: join(locks, "users") };
}

/** Finds or makes the directories. Call it with the start lock held. */
export function prepareLayout(dataDir: string): Layout {
  const paths = lockPaths(dataDir);
  const home = clusterHome(paths.base);
  const cluster = join(home, "cluster");
  return { ...paths, home, cluster, log: join(home, "postgres.log"), account: accountFor(cluster) };
}

/**
 * As root the server runs under another account, which has to pass through every directory above the cluster. Ours
 * get the right to be passed through, not to be listed, and what lies in them is private by itself; directories
 * further up are not ours to open, so the cluster then goes elsewhere and `location` says where.
 */
function clusterHome(base: string): string {
  const location = join(base, "location");
  if (existsSync(location)) return readFileSync(location, "utf8").trim();
  const account = accountFor(join(base, "cluster"));
  if (!account.foreign) return base;
  for (const directory of [dirname(base), base]) letPass(directory);
  if (blockingDirectory(join(base, "cluster"), account) === null) return base;
  const home = join(OUTSIDE, randomUUID());
  mkdirSync(home, { recursive: true, mode: 0o711 });
  for (const directory of [OUTSIDE, home]) letPass(directory);
  // For people: a data directory that is deleted by hand leaves its cluster here.
  writeFileSync(join(home, "data-directory"), `${dirname(base)}\n`, { mode: 0o600 });
  writeFileSync(location, `${home}\n`, { mode: 0o600 });
  return home;
}

/** Lets others pass through a directory of root's without reading it. */
function letPass(directory: string): void {
  const { mode, uid } = statSync(directory);
  if (uid === 0 && (mode & 0o011) !== 0o011) chmodSync(directory, (mode & 0o777) | 0o011);
}

/**
 * The private directory of the server's socket: beside the cluster, or a short one where that path is too long for
 * a socket. A short one is gone after a reboot and is made anew.
 */
export function socketDirectory({ base, home, account }: Layout): string {
  const beside = join(home, "socket");
  if (fitsSocket(beside)) {
    if (!isPrivate(beside, account)) makePrivate(beside, account);
    return beside;
  }
  const record = join(base, "socket-directory");
  const recorded = existsSync(record) ? readFileSync(record, "utf8").trim() : "";
  if (recorded !== "" && isPrivate(recorded, account)) return recorded;
  const parent = account.foreign && existsSync("/run") ? "/run" : "/tmp";
  const made = mkdtempSync(join(parent, "drover-"));
  if (account.foreign) chownSync(made, account.uid, account.gid);
  writeFileSync(record, `${made}\n`, { mode: 0o600 });
  return made;
}

/** The file beside the socket that names the server's process, as Postgres writes it. */
export function socketLock(directory: string): string {
  return join(directory, `${SOCKET_NAME}.lock`);
}

function fitsSocket(directory: string): boolean {
  return Buffer.byteLength(join(directory, SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES;
}

/** A real directory of the account's own that nobody else may enter: /tmp is open to everybody's tricks. */
function isPrivate(directory: string, account: Account): boolean {
  const found = lstatSync(directory, { throwIfNoEntry: false });
  return found?.isDirectory() === true && found.uid === account.uid && (found.mode & 0o077) === 0;
}

/** Makes a directory in one of ours, where nobody else can put anything in its place. */
export function makePrivate(directory: string, account: Account): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { mode: 0o700 });
  if (account.foreign) chownSync(directory, account.uid, account.gid);
}

/** Throws a DatabaseSetupError when the cluster was made by another major version of Postgres. */
export function refuseOtherMajor(cluster: string, major: number): void {
  const found = readFileSync(join(cluster, "PG_VERSION"), "utf8").trim();
  if (found === String(major)) return;
  throw new DatabaseSetupError(
    `The database in ${cluster} was made by Postgres ${found}; this release of Drover ships Postgres ${major}. ` +
      `Start the release that made it, save its contents with pg_dump, then either set DROVER_DATA_DIR to a new directory and load them there, ` +
      `or load them into a Postgres server and set DATABASE_URL to it. Nothing was changed.`,
  );
}

/** Removes everything of a data directory's database, also what lies outside. No server may run. */
export function removeLayout(base: string): void {
  const outside = ["location", "socket-directory"].flatMap((name) => {
    const path = join(base, name);
    return existsSync(path) ? [readFileSync(path, "utf8").trim()] : [];
  });
  for (const directory of [...outside, base]) rmSync(directory, { recursive: true, force: true });
  const isLast =
    outside.some((directory) => dirname(directory) === OUTSIDE) && readdirSync(OUTSIDE).length === 0;
  if (isLast) rmdirSync(OUTSIDE);
}

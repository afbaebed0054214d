import { randomUUID } from "node:crypto";
import { link, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import type { InstallationId } from "../lib/ids.ts";
import { StartupError } from "../lib/startup-error.ts";

/**
 * The directory of images. Layout:
 *
 *   installation-id        whose directory this is
 *   incoming/<name>        files being received; nothing there is an image yet
 *   sha256/ab/abcdef…      contents, each once, named by their SHA-256
 */
export const INCOMING = "incoming";
export const CONTENTS = "sha256";
const MARKER = "installation-id";

export interface ClaimOptions {
  readonly installationId: InstallationId;
  /**
   * True only in the process that makes the installation's row, before it commits that: the one moment at which an
   * unmarked directory is right. Later on it means that this process looks at another directory than the others.
   */
  readonly isNewInstallation: boolean;
}

/**
 * Makes sure that the directory is this installation's, and makes its folders. Processes that share a database must
 * share the images too: one that would see an empty directory where others keep images must not start.
 * @throws {StartupError} with one line that names the directory and says what to do.
 */
export async function claimImageDirectory(
  directory: string,
  { installationId, isNewInstallation }: ClaimOptions,
): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const owner = await readMarker(directory);
  if (owner !== installationId) {
    if (!isNewInstallation) throw new StartupError(explainRefusal(directory, owner, installationId));
    if (owner !== null && (await holdsContents(directory))) {
      throw new StartupError(
        `The image directory ${directory} holds images of another installation (${owner}): ` +
          "set DROVER_DATA_DIR to a directory of its own, or use that installation's database.",
      );
    }
    await writeMarker(directory, installationId);
  }
  await mkdir(path.join(directory, INCOMING), { recursive: true, mode: 0o700 });
  await mkdir(path.join(directory, CONTENTS), { recursive: true, mode: 0o700 });
}

async function readMarker(directory: string): Promise<string | null> {
  try {
    return (await readFile(path.join(directory, MARKER), "utf8")).trim();
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** Writes the marker whole or not at all. A first start that was killed may have left one of an unborn installation. */
async function writeMarker(directory: string, installationId: InstallationId): Promise<void> {
  const draft = path.join(directory, `${MARKER}.${randomUUID()}`);
  const file = await open(draft, "wx", 0o600);
  try {
    await file.writeFile(`${installationId}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path.join(directory, MARKER));
  await syncDirectory(directory);
}

async function holdsContents(directory: string): Promise<boolean> {
  return (await list(path.join(directory, CONTENTS))).length > 0;
}

function explainRefusal(directory: string, owner: string | null, installationId: InstallationId): string {
  if (owner !== null) {
    return (
      `The image directory ${directory} belongs to the installation ${owner}, but the database to ${installationId}: ` +
      "set DROVER_DATA_DIR and DATABASE_URL to the same installation's."
    );
  }
  return (
    `The image directory ${directory} is not the one that this installation keeps its images in: share that directory ` +
    `with this process, or, if you moved the images here, write the installation's id into it: ` +
    `echo ${installationId} > ${path.join(directory, MARKER)}`
  );
}

/** Names in a directory; none where it does not exist, or is none. */
export async function list(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error) || errorCode(error) === "ENOTDIR") return [];
    throw error;
  }
}

/** Makes names that were just made or taken away in a directory survive a power failure. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Gives a file a second name. Returns false where that name exists already. */
export async function linkUnlessThere(existing: string, name: string): Promise<boolean> {
  try {
    await link(existing, name);
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes a file; one that is gone already is fine. */
export async function removeFile(file: string): Promise<void> {
  await rm(file, { force: true });
}

export function isMissing(error: unknown): boolean {
  return errorCode(error) === "ENOENT";
}

/** The operating system's code of an error, such as `ENOSPC`; undefined where it has none. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

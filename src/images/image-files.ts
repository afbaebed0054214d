import { randomUUID } from "node:crypto";
import { renameSync } from "node:fs";
import { type FileHandle, mkdir, open, stat } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../lib/errors.ts";
import {
  CONTENTS,
  INCOMING,
  isMissing,
  linkUnlessThere,
  list,
  removeFile,
  syncDirectory,
} from "./image-directory.ts";
import { type ReceivedFile, type ReceiveOptions, receiveFile } from "./incoming-file.ts";

/**
 * Contents of images, each stored once under its SHA-256. Knows nothing of images: whether a content is still wanted
 * says the database, and `place` and `remove` are called only under the content's lock (image-contents.ts).
 */
export interface ImageFiles {
  /** Receives a stream into a new incoming file. `label` becomes a part of its name. */
  receive(label: string, options: Omit<ReceiveOptions, "file" | "reserveBytes">): Promise<ReceivedFile>;
  /** A path for a new incoming file, which is the caller's to write and remove. */
  newPath(label: string): string;
  /**
   * Gives a received file its place among the contents; one that is there already is kept. The incoming name stays,
   * so that a transaction that runs again finds it: `discard` it afterwards.
   */
  place(received: ReceivedFile): Promise<void>;
  /** Removes an incoming file. None: fine. */
  discard(file: string): Promise<void>;
  /** Removes the incoming files of this label. */
  discardLabelled(label: string): Promise<void>;
  /**
   * Takes a content from its place at once, without giving the loop away: its lock must not be lost between the look
   * at the database and this. Returns the incoming name it has now, to be discarded; null when there is none.
   */
  withdraw(sha256: string): string | null;
  /** Size of a content in bytes, or null when there is none. */
  sizeOf(sha256: string): Promise<number | null>;
  /**
   * Reads a content from its beginning. It stays readable to its end even when it is removed meanwhile. A chunk is
   * overwritten when six more have been asked for: who keeps it longer copies it.
   */
  read(sha256: string): AsyncIterable<Uint8Array>;
  /** The path of a content, for programs that take one. */
  pathOf(sha256: string): string;
  /** Every content, one folder of the store at a time. */
  contents(): AsyncIterable<readonly string[]>;
  /** Incoming files that were not written to for this long, by the clock of the file system. */
  abandoned(olderThanSeconds: number): Promise<readonly string[]>;
}

export interface ImageFilesOptions {
  /** A directory claimed with `claimImageDirectory`. */
  readonly directory: string;
  /** See ReceiveOptions. */
  readonly reserveBytes: number;
}

const DIGEST = /^[0-9a-f]{64}$/;
const READ_CHUNK_BYTES = 1024 * 1024;
/** What is read is kept in these many chunks by turns: a buffer of its own for each would be most of a transfer's work. */
const READ_CHUNKS = 8;

export function createImageFiles({ directory, reserveBytes }: ImageFilesOptions): ImageFiles {
  const incoming = path.join(directory, INCOMING);
  const contents = path.join(directory, CONTENTS);
  const pathOf = (sha256: string) => contentPath(contents, sha256);
  const newPath = (label: string) => path.join(incoming, `${label}.${randomUUID()}`);
  return {
    receive: (label, options) => receiveFile({ ...options, reserveBytes, file: newPath(label) }),
    newPath,
    place: (received) => place(received, pathOf(received.sha256)),
    discard: removeFile,
    async discardLabelled(label) {
      for (const name of await list(incoming)) {
        if (name.startsWith(`${label}.`)) await removeFile(path.join(incoming, name));
      }
    },
    withdraw: (sha256) => withdraw(pathOf(sha256), path.join(incoming, `removed.${randomUUID()}`)),
    sizeOf: (sha256) => sizeOf(pathOf(sha256)),
    read: (sha256) => readContent(pathOf(sha256)),
    pathOf,
    contents: () => allContents(contents),
    abandoned: (olderThanSeconds) => abandoned(incoming, olderThanSeconds),
  };
}

function contentPath(contents: string, sha256: string): string {
  // A digest becomes a path here, so nothing else may pass.
  if (!DIGEST.test(sha256)) throw new TypeError(`not a SHA-256: ${sha256.slice(0, 80)}`);
  return path.join(contents, sha256.slice(0, 2), sha256);
}

async function place(received: ReceivedFile, target: string): Promise<void> {
  const folder = path.dirname(target);
  if ((await mkdir(folder, { recursive: true, mode: 0o700 })) !== undefined)
    await syncDirectory(path.dirname(folder));
  try {
    if (!(await linkUnlessThere(received.file, target)) && (await sizeOf(target)) !== received.sizeBytes) {
      // Its name says what it holds, so a file of another size was damaged from outside: the fresh one replaces it.
      await removeFile(target);
      await linkUnlessThere(received.file, target);
    }
  } catch (error) {
    if (!isMissing(error)) throw error;
    throw new DroverError(
      "unavailable",
      "The received image was removed before it could be stored, because it took too long. Send it again.",
      { cause: error },
    );
  }
  await syncDirectory(folder);
}

function withdraw(target: string, name: string): string | null {
  try {
    renameSync(target, name);
    return name;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function sizeOf(file: string): Promise<number | null> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** Opens the file only when it is read, so that a content that nobody reads holds nothing open. */
async function* readContent(file: string): AsyncGenerator<Uint8Array> {
  const handle = await open(file, "r");
  let ahead: Promise<Uint8Array> | null = null;
  try {
    const ring = Buffer.allocUnsafeSlow(READ_CHUNKS * READ_CHUNK_BYTES);
    ahead = readInto(handle, ring, 0);
    for (let slot = 1; ; slot = (slot + 1) % READ_CHUNKS) {
      const chunk = await ahead;
      if (chunk.byteLength === 0) return;
      // Read while this one is on its way.
      ahead = readInto(handle, ring, slot);
      yield chunk;
    }
  } finally {
    await ahead?.catch(() => undefined);
    await handle.close();
  }
}

async function readInto(handle: FileHandle, ring: Buffer, slot: number): Promise<Uint8Array> {
  const from = slot * READ_CHUNK_BYTES;
  const { bytesRead } = await handle.read(ring, from, READ_CHUNK_BYTES, null);
  return ring.subarray(from, from + bytesRead);
}

async function* allContents(contents: string): AsyncGenerator<readonly string[]> {
  for (const folder of await list(contents)) {
    yield (await list(path.join(contents, folder))).filter(
      (name) => DIGEST.test(name) && name.startsWith(folder),
    );
  }
}

/** The directory may be on a file server, so its own clock counts: that of a file touched now. */
async function abandoned(incoming: string, olderThanSeconds: number): Promise<readonly string[]> {
  const probe = path.join(incoming, `clock.${randomUUID()}`);
  const handle = await open(probe, "wx", 0o600);
  try {
    const now = (await handle.stat()).mtimeMs;
    const found: string[] = [];
    for (const name of await list(incoming)) {
      const file = path.join(incoming, name);
      if (file === probe) continue;
      const modified = await modifiedMs(file);
      if (modified !== null && now - modified > olderThanSeconds * 1000) found.push(file);
    }
    return found;
  } finally {
    await handle.close();
    await removeFile(probe);
  }
}

async function modifiedMs(file: string): Promise<number | null> {
  try {
    return (await stat(file)).mtimeMs;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

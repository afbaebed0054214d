import { createHash } from "node:crypto";
import { type FileHandle, open, statfs } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../lib/errors.ts";
import { errorCode, removeFile } from "./image-directory.ts";
import { HEAD_BYTES } from "./image-format.ts";

/**
 * Writes a stream to a new file in constant memory: one chunk is written while it is hashed, and the source is asked
 * for the next one only then.
 */

export interface ReceiveOptions {
  /** Where the file goes; it must not exist. */
  readonly file: string;
  readonly source: AsyncIterable<Uint8Array>;
  readonly maxBytes: number;
  /** Space that must stay free on the disk: the database may live there too, and must not be the one to run dry. */
  readonly reserveBytes: number;
  /** Size that the sender announced, or null: a full disk is then told at once instead of after hours. */
  readonly announcedBytes: number | null;
  /** Called once with the first `HEAD_BYTES`, or all there is; what it throws ends the transfer early. */
  readonly onHead: (head: Uint8Array) => void;
  readonly onProgress?: (receivedBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface ReceivedFile {
  readonly file: string;
  readonly sizeBytes: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** How many bytes are taken between two looks at the free space. */
const SPACE_CHECK_BYTES = 64 * 1024 * 1024;

/**
 * Receives a file and makes it durable. Whatever goes wrong, nothing of it stays behind.
 * @throws {DroverError} `payload_too_large`, `storage_full`; what `source`, `onHead` or the signal throws.
 */
export async function receiveFile(options: ReceiveOptions): Promise<ReceivedFile> {
  const { file, announcedBytes, maxBytes } = options;
  if (announcedBytes !== null && announcedBytes > maxBytes) throw tooLarge(maxBytes);
  await requireSpace(options, announcedBytes ?? 0).catch(rethrow);
  const handle = await open(file, "wx", 0o600).catch(rethrow);
  try {
    const received = await copy(handle, options);
    await handle.sync();
    return { file, ...received };
  } catch (error) {
    await removeFile(file);
    return rethrow(error);
  } finally {
    await handle.close();
  }
}

/** Hashes a stream without keeping it. */
export async function hashStream(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<{ readonly sizeBytes: number; readonly sha256: string }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of source) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw tooLarge(maxBytes);
    hash.update(chunk);
  }
  return { sizeBytes, sha256: hash.digest("hex") };
}

async function copy(
  handle: FileHandle,
  options: ReceiveOptions,
): Promise<{ readonly sizeBytes: number; readonly sha256: string }> {
  const { source, maxBytes, signal, onProgress } = options;
  const hash = createHash("sha256");
  const head = headCollector(options.onHead);
  let sizeBytes = 0;
  let nextSpaceCheck = SPACE_CHECK_BYTES;
  for await (const chunk of source) {
    signal?.throwIfAborted();
    if (sizeBytes + chunk.length > maxBytes) throw tooLarge(maxBytes);
    head.add(chunk);
    const written = writeAll(handle, chunk, sizeBytes);
    hash.update(chunk);
    await written;
    sizeBytes += chunk.length;
    if (sizeBytes >= nextSpaceCheck) {
      nextSpaceCheck = sizeBytes + SPACE_CHECK_BYTES;
      await requireSpace(options, 0);
    }
    onProgress?.(sizeBytes);
  }
  signal?.throwIfAborted();
  head.end();
  return { sizeBytes, sha256: hash.digest("hex") };
}

/** Gathers the first bytes and hands them on once. */
function headCollector(onHead: (head: Uint8Array) => void) {
  const buffer = new Uint8Array(HEAD_BYTES);
  let length = 0;
  let told = false;
  const tell = () => {
    if (told) return;
    told = true;
    onHead(buffer.subarray(0, length));
  };
  return {
    add(chunk: Uint8Array): void {
      if (told) return;
      const part = chunk.subarray(0, HEAD_BYTES - length);
      buffer.set(part, length);
      length += part.length;
      if (length === HEAD_BYTES) tell();
    },
    end: tell,
  };
}

async function writeAll(handle: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < chunk.length) {
    const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

async function requireSpace({ file, reserveBytes }: ReceiveOptions, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(path.dirname(file));
  const freeBytes = bavail * bsize;
  if (freeBytes - neededBytes >= reserveBytes) return;
  throw storageFull(
    `${freeBytes} bytes are free, and ${reserveBytes} of them are kept for the service` +
      (neededBytes > 0 ? `; the image needs ${neededBytes}.` : "."),
  );
}

function rethrow(error: unknown): never {
  const code = errorCode(error);
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") {
    throw storageFull("It ran full while the image was written.", error);
  }
  // What comes from the source has a meaning already; an error of a system call here is the disk's.
  if (code === undefined || error instanceof DroverError) throw error;
  throw new DroverError(
    "unavailable",
    `The image store cannot be written to (${code}). Nothing of this image was kept; tell the operator if it goes on.`,
    { cause: error },
  );
}

function storageFull(detail: string, cause?: unknown): DroverError {
  return new DroverError(
    "storage_full",
    `The disk of the image store has no room for this image. ${detail} Delete images that are not needed, or ask the ` +
      "operator for a larger disk; nothing of this image was kept.",
    { cause },
  );
}

function tooLarge(maxBytes: number): DroverError {
  return new DroverError(
    "payload_too_large",
    `The image is larger than ${maxBytes} bytes, the largest that is taken here. Nothing of it was kept.`,
  );
}

import { type FileHandle, open } from "node:fs/promises";
import { execa } from "execa";
import { DroverError } from "../lib/errors.ts";
import { removeFile } from "./image-directory.ts";

/** The largest disk over the slowest storage takes less. */
const TIMEOUT_MS = 24 * 60 * 60 * 1000;
const READ_CHUNK_BYTES = 1024 * 1024;

export interface RawContentOptions {
  /** A qcow2 that was checked when it was taken: it names no other file. */
  readonly source: string;
  /** Where the disk is unpacked to; nothing is there yet, and nothing stays. */
  readonly scratch: string;
  readonly signal: AbortSignal;
  /** `qemu-img`, or the path of one. */
  readonly program?: string;
}

/**
 * A qcow2 as the disk that a guest sees, from its beginning: for volumes that hold nothing but that. It is unpacked when the
 * first part is asked for, to a file without a name, which ends with its reader.
 * @throws {DroverError} `capability_unsupported` without qemu-img, `storage_full`, `internal`
 */
export async function* rawContent(options: RawContentOptions): AsyncGenerator<Uint8Array> {
  const handle = await unpack(options);
  try {
    for await (const chunk of handle.createReadStream({ highWaterMark: READ_CHUNK_BYTES, autoClose: false }))
      yield chunk as Uint8Array;
  } finally {
    await handle.close();
  }
}

async function unpack(options: RawContentOptions): Promise<FileHandle> {
  const { scratch } = options;
  try {
    await convert(options);
    return await open(scratch, "r");
  } finally {
    await removeFile(scratch);
  }
}

async function convert({ source, scratch, signal, program = "qemu-img" }: RawContentOptions): Promise<void> {
  // Handed over so that no part of a path is read as a protocol or an option.
  const args = ["convert", "-f", "qcow2", "-O", "raw", `file:${source}`, `file:${scratch}`];
  const result = await execa(program, args, {
    reject: false,
    stdin: "ignore",
    timeout: TIMEOUT_MS,
    cancelSignal: signal,
    // Nothing of our environment is its business, credentials least of all.
    extendEnv: false,
    env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL: "C" },
    cwd: "/",
  });
  signal.throwIfAborted();
  if (!result.failed) return;
  const { code, stderr, timedOut } = result;
  if (code === "ENOENT" || code === "EACCES") {
    throw new DroverError(
      "capability_unsupported",
      "This control plane cannot unpack qcow2 images for pools that hold raw disks: install qemu-img on it (Debian: qemu-utils).",
    );
  }
  if (/No space left on device/.test(stderr)) {
    throw new DroverError(
      "storage_full",
      "The image store's disk has no room to unpack the image. Ask the operator for a larger one, or choose a pool of files.",
    );
  }
  const why = timedOut ? "it took too long" : (stderr.split("\n")[0] ?? "");
  throw new DroverError(
    "internal",
    `The image could not be unpacked: ${why.replaceAll(source, "the image")}`,
  );
}

import { appendFile, mkdir, readFile, rename, stat } from "node:fs/promises";
import path from "node:path";
import { isMissing, list, removeFile } from "../image-directory.ts";

/**
 * The logs of builds, in files: one that is written, and the one before it. So a log never grows beyond twice
 * `PART_BYTES`, and its end is always there.
 */
export interface BuildLogs {
  /** Goes on with the log of an image, or begins it. */
  open(imageId: string): BuildLog;
  /** The last bytes of a log; null: there is none. */
  read(imageId: string, maxBytes: number): Promise<Uint8Array | null>;
  remove(imageId: string): Promise<void>;
  /** Ids of the images that have one. */
  imageIds(): Promise<readonly string[]>;
}

export interface BuildLog {
  write(line: string): void;
  /** Waits until everything is in the file. @throws what the file system throws. */
  close(): Promise<void>;
}

const PART_BYTES = 512 * 1024;
const MAX_LINE_LENGTH = 2_000;
const CURRENT = ".log";
const EARLIER = ".earlier.log";

/** @param directory is made with the first log. */
export function createBuildLogs(directory: string): BuildLogs {
  const files = (imageId: string) => ({
    current: path.join(directory, `${imageId}${CURRENT}`),
    earlier: path.join(directory, `${imageId}${EARLIER}`),
  });
  return {
    open: (imageId) => new LogWriter(directory, files(imageId)),
    async read(imageId, maxBytes) {
      const { current, earlier } = files(imageId);
      const parts = [await contentOf(earlier), await contentOf(current)].filter((part) => part !== null);
      return parts.length === 0 ? null : Buffer.concat(parts).subarray(-maxBytes);
    },
    async remove(imageId) {
      const { current, earlier } = files(imageId);
      await removeFile(earlier);
      await removeFile(current);
    },
    async imageIds() {
      const names = await list(directory);
      return [...new Set(names.map((name) => name.split(".")[0] ?? ""))].filter((id) => id !== "");
    },
  };
}

class LogWriter implements BuildLog {
  readonly #directory: string;
  readonly #files: { readonly current: string; readonly earlier: string };
  #lines: string[] = [];
  #writing: Promise<void> = Promise.resolve();
  #error: Error | null = null;

  constructor(directory: string, files: { readonly current: string; readonly earlier: string }) {
    this.#directory = directory;
    this.#files = files;
  }

  write(line: string): void {
    this.#lines.push(`${line.slice(0, MAX_LINE_LENGTH)}\n`);
    // Lines that come while others are written are written together.
    if (this.#lines.length === 1) this.#writing = this.#writing.then(() => this.#flush());
  }

  async close(): Promise<void> {
    await this.#writing;
    if (this.#error !== null) throw this.#error;
  }

  async #flush(): Promise<void> {
    const text = this.#lines.join("");
    this.#lines = [];
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await appendFile(this.#files.current, text, { mode: 0o600 });
      if ((await stat(this.#files.current)).size > PART_BYTES)
        await rename(this.#files.current, this.#files.earlier);
    } catch (error) {
      // Told at the end: a build does not stop in the middle of a line.
      this.#error ??= error instanceof Error ? error : new Error("not written", { cause: error });
    }
  }
}

async function contentOf(file: string): Promise<Buffer | null> {
  try {
    return await readFile(file);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

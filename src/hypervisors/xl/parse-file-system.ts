import { unreadable } from "./errors.ts";
import type { ProgramArguments } from "./host.ts";

/** Room in the file system of a pool's directory. */
export interface FileSystemRoom {
  readonly capacityBytes: number;
  /** For any user. */
  readonly availableBytes: number;
}

/** What to run for `parseFileSystem`. */
export function askFileSystem(directory: string): ProgramArguments {
  return ["stat", "--file-system", "--format=%S %b %a", "--", directory];
}

/** Block size, blocks, and blocks that are free for any user. */
const LINE = /^(\d{1,10}) (\d{1,19}) (\d{1,19})\n?$/;

/** Reads what `askFileSystem` prints. Throws HypervisorError (`failed`) for anything else. */
export function parseFileSystem(text: string): FileSystemRoom {
  const [, blockBytes, blocks, available] = LINE.exec(text) ?? [];
  if (blockBytes === undefined || blocks === undefined || available === undefined) {
    throw unreadable("stat --file-system", `it is '${text.slice(0, 200)}'`);
  }
  const bytes = (count: string): number =>
    Math.min(Number(count) * Number(blockBytes), Number.MAX_SAFE_INTEGER);
  return { capacityBytes: bytes(blocks), availableBytes: bytes(available) };
}

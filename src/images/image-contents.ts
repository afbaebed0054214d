import type { Database, Tx } from "../db/client.ts";
import type { ImageFiles } from "./image-files.ts";
import { contentsInUse, lockContent } from "./image-store.ts";
import type { ReceivedFile } from "./incoming-file.ts";

/**
 * Where files and rows meet. A content's file exists as long as a row refers to it:
 * - it is placed under its lock, in the transaction that writes the row, before that commits;
 * - it is removed under its lock, when a statement begun after the lock was taken sees no row.
 * So a removal waits for a placement under way and then sees its row, and a placement that waits for a removal
 * places the file anew. What a crash leaves in between is a file without a row: `sweepContents` finds it.
 */
export interface ContentsDeps {
  readonly database: Database;
  readonly files: ImageFiles;
}

/** Puts a received file in its place; call it in the transaction that writes the row which refers to it. */
export async function placeContent(tx: Tx, files: ImageFiles, received: ReceivedFile): Promise<void> {
  await lockContent(tx, received.sha256);
  await files.place(received);
}

/** Removes a content that no row refers to. Returns whether it was removed. */
export async function collectContent({ database, files }: ContentsDeps, sha256: string): Promise<boolean> {
  const withdrawn = await database.transaction(async (tx) => {
    await lockContent(tx, sha256);
    return (await contentsInUse(tx, [sha256])).has(sha256) ? null : files.withdraw(sha256);
  });
  // Freeing the space of a large file takes a while, and needs no lock any more.
  if (withdrawn !== null) await files.discard(withdrawn);
  return withdrawn !== null;
}

/** Incoming files that nobody wrote to for so long are left behind: a transfer that is silent for a minute is ended. */
const ABANDONED_SECONDS = 3600;

export interface SweepResult {
  readonly contents: number;
  readonly incoming: number;
}

/** Removes what a crash left behind: contents without a row, and incoming files that nobody writes to. */
export async function sweepContents(deps: ContentsDeps): Promise<SweepResult> {
  let contents = 0;
  for await (const folder of deps.files.contents()) {
    if (folder.length === 0) continue;
    const used = await contentsInUse(deps.database, folder);
    for (const sha256 of folder) {
      if (!used.has(sha256) && (await collectContent(deps, sha256))) contents++;
    }
  }
  const abandoned = await deps.files.abandoned(ABANDONED_SECONDS);
  for (const file of abandoned) await deps.files.discard(file);
  return { contents, incoming: abandoned.length };
}

import type { Database } from "../../db/client.ts";
import { isUuid } from "../../lib/ids.ts";
import { imageStays, unendedOperations } from "../image-store.ts";
import type { ImageBuilder } from "./image-builder.ts";

export interface BuildSweepDeps {
  readonly database: Database;
  readonly builder: Pick<ImageBuilder, "clear" | "directories" | "logs">;
}

/** Removes the log of an image that is not there any more; waits for a transaction that deletes it. */
export async function collectLog({ database, builder }: BuildSweepDeps, imageId: string): Promise<boolean> {
  return await database.transaction(async (tx) => {
    if (await imageStays(tx, imageId)) return false;
    await builder.logs.remove(imageId);
    return true;
  });
}

/** Removes directories of builds that have ended, and logs of images that are gone. Returns how many. */
export async function sweepBuilds(deps: BuildSweepDeps): Promise<number> {
  const { database, builder } = deps;
  let removed = 0;
  const operationIds = (await builder.directories.operationIds()).filter(isUuid);
  const underWay = await unendedOperations(database, operationIds);
  for (const id of operationIds.filter((candidate) => !underWay.has(candidate))) {
    await builder.clear(id);
    removed++;
  }
  for (const imageId of (await builder.logs.imageIds()).filter(isUuid))
    if (await collectLog(deps, imageId)) removed++;
  return removed;
}

import type { Sql } from "../../db/transaction.ts";
import type { VmId } from "../../lib/ids.ts";

/** The sealed files of a VM's seed; null when it has none, or is gone. */
export async function sealedSeedOf(db: Sql, vmId: VmId): Promise<Uint8Array | null> {
  const [row] = await db.$queryRaw<{ files: Uint8Array }[]>`
    SELECT files FROM vm_seed WHERE vm_id = ${vmId}::uuid`;
  return row?.files ?? null;
}

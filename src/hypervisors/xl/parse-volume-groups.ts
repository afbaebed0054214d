import { z } from "zod";
import { unreadable } from "./errors.ts";
import type { ProgramArguments } from "./host.ts";

/** A volume group of LVM: a pool by its own name. */
export interface VolumeGroup {
  readonly name: string;
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

/** What to run for `parseVolumeGroups`. */
export const LIST_VOLUME_GROUPS: ProgramArguments = [
  "vgs",
  ...["--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,vg_size,vg_free"],
];

const bytes = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform((digits) => Math.min(Number(digits), Number.MAX_SAFE_INTEGER));
const schema = z.object({
  report: z.array(
    z.object({ vg: z.array(z.object({ vg_name: z.string().min(1), vg_size: bytes, vg_free: bytes })) }),
  ),
});

/** Reads what LIST_VOLUME_GROUPS prints. Throws HypervisorError (`failed`) for anything else. */
export function parseVolumeGroups(text: string): readonly VolumeGroup[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw unreadable("vgs", "it is no JSON", cause);
  }
  const read = schema.safeParse(json);
  if (!read.success) throw unreadable("vgs", z.prettifyError(read.error), read.error);
  return read.data.report.flatMap(({ vg }) =>
    vg.map((group) => ({
      name: group.vg_name,
      capacityBytes: group.vg_size,
      availableBytes: group.vg_free,
    })),
  );
}

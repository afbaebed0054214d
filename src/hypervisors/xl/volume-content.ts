import { type Call, HypervisorError, type VolumeAbility } from "../hypervisor.ts";
import { exactly } from "../upload-source.ts";
import { unreadable } from "./errors.ts";
import type { ChangeOptions } from "./host.ts";

/** What volumes in files and volumes in volume groups have in common. */

/** Members that are optional in the contract, and that every kind of pool has here. */
export type XlVolumes = VolumeAbility & Required<Pick<VolumeAbility, "uploadPart" | "digestVolume">>;

/** What takes as long as a content, or as its source gives: this only ends what hangs for good. */
export const CONTENT_LIMIT_SECONDS = 24 * 60 * 60;

/** Feeds a source of this size to a change of a volume. Rejects with `aborted` where the caller gives it up. */
export async function receive(
  volumeName: string,
  source: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  { signal }: Call,
  change: (options: Omit<ChangeOptions, "lock">) => Promise<unknown>,
): Promise<void> {
  const input = exactly(source, sizeBytes, signal);
  try {
    await change({ input, limitSeconds: CONTENT_LIMIT_SECONDS });
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    throw new HypervisorError("aborted", `the upload of volume '${volumeName}' was given up`, {
      cause: error,
    });
  }
}

/** The digest in what sha256sum writes. */
export function digestIn(stdout: string): string {
  const digest = /^([0-9a-f]{64}) /.exec(stdout)?.[1];
  if (digest === undefined) throw unreadable("sha256sum", `it says ${stdout.slice(0, 200)}`);
  return digest;
}

import type { Tx } from "../../db/transaction.ts";
import { DroverError, type Violation } from "../../lib/errors.ts";
import type { ProjectId } from "../../lib/ids.ts";
import type { SecretBox } from "../../lib/secret-box.ts";
import { publicKeyLine } from "../../ssh-keys/parse-public-key.ts";
import { findSshKeys } from "../../ssh-keys/ssh-key-store.ts";
import type { CloudInit, NewCloudInit } from "./cloud-init-schemas.ts";
import { type PublicKeys, type SeedOwner, sealSeed, seedFilesOf, seedImage, shownCloudInit } from "./seed.ts";

/** The seed of a VM that is about to be written. */
export interface PlannedSeed {
  readonly shown: CloudInit;
  readonly sealed: Uint8Array<ArrayBuffer>;
  /** Of the volume that it will be. */
  readonly sizeBytes: number;
}

/**
 * Plans the seed of a new VM with the public keys as they are now.
 * Throws DroverError `invalid_request` for an ssh key that the project does not have.
 */
export async function planSeed(
  tx: Tx,
  secretBox: SecretBox,
  projectId: ProjectId,
  vm: SeedOwner,
  asked: NewCloudInit | undefined,
): Promise<PlannedSeed | null> {
  if (asked === undefined) return null;
  const files = seedFilesOf(vm, asked, await publicKeysOf(tx, projectId, asked));
  return {
    shown: shownCloudInit(vm, asked),
    sealed: sealSeed(secretBox, files),
    sizeBytes: seedImage(files).length,
  };
}

async function publicKeysOf(tx: Tx, projectId: ProjectId, asked: NewCloudInit): Promise<PublicKeys> {
  const lists = [
    { pointer: "/spec/cloudInit/sshKeys", names: asked.sshKeys },
    ...asked.users.map(({ sshKeys }, index) => ({
      pointer: `/spec/cloudInit/users/${index}/sshKeys`,
      names: sshKeys,
    })),
  ];
  const rows = await findSshKeys(tx, projectId, [...new Set(lists.flatMap(({ names }) => names))]);
  const keys = new Map(
    rows.flatMap((row) => [
      [row.id as string, publicKeyLine(row)],
      [row.name, publicKeyLine(row)],
    ]),
  );
  const violations = lists.flatMap(({ pointer, names }) =>
    names.flatMap((name, index): Violation[] =>
      keys.has(name)
        ? []
        : [{ pointer: `${pointer}/${index}`, message: `there is no ssh key "${name}" in this project` }],
    ),
  );
  if (violations.length > 0) {
    const named = violations.map(({ pointer, message }) => `${pointer}: ${message}`).join("; ");
    throw new DroverError("invalid_request", `${named}. List them with GET /v1/ssh-keys.`, { violations });
  }
  return keys;
}

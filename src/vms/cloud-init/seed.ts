import { createHash } from "node:crypto";
import { z } from "zod";
import type { SecretBox } from "../../lib/secret-box.ts";
import type { CloudInit, NewCloudInit } from "./cloud-init-schemas.ts";
import { type IsoFile, writeIso } from "./iso9660.ts";

/**
 * The seed: the volume by which cloud-init's data source NoCloud knows a VM. Pure, but for the sealing. User-data is the
 * client's alone; what comes from fields goes into meta-data and vendor-data.
 */

/** cloud-init looks for a file system with this label. */
const LABEL = "cidata";

/** What cloud-init takes for user-data that asks for nothing; without the file it would not see the seed at all. */
const NO_USER_DATA = "#cloud-config\n{}\n";

const SeedFiles = z.strictObject({
  userData: z.string(),
  metaData: z.string(),
  vendorData: z.string().nullable(),
  networkConfig: z.string().nullable(),
});
export type SeedFiles = z.output<typeof SeedFiles>;

/** Public keys as lines, by the id or name they were asked for with. */
export type PublicKeys = ReadonlyMap<string, string>;

export interface SeedOwner {
  readonly id: string;
  readonly name: string;
}

/** The files of a VM's seed. `keys` must have every key that is named. */
export function seedFilesOf(vm: SeedOwner, asked: NewCloudInit, keys: PublicKeys): SeedFiles {
  const publicKeys = linesOf(asked.sshKeys, keys);
  return {
    userData: asked.userData ?? NO_USER_DATA,
    metaData: yaml({
      "instance-id": vm.id,
      "local-hostname": hostnameOf(vm, asked),
      ...(publicKeys.length === 0 ? {} : { "public-keys": publicKeys }),
    }),
    vendorData: asked.users.length === 0 ? null : `#cloud-config\n${yaml({ users: usersOf(asked, keys) })}`,
    networkConfig: asked.networkConfig,
  };
}

/** Users in cloud-config's words. The image's own one is named first: a list without it would leave it out. */
function usersOf({ users }: NewCloudInit, keys: PublicKeys): readonly unknown[] {
  return [
    "default",
    ...users.map(({ name, sshKeys, sudo }) => ({
      name,
      lock_passwd: true,
      shell: "/bin/bash",
      ...(sudo ? { sudo: "ALL=(ALL) NOPASSWD:ALL" } : {}),
      ssh_authorized_keys: linesOf(sshKeys, keys),
    })),
  ];
}

function linesOf(names: readonly string[], keys: PublicKeys): string[] {
  const lines = names.map((name) => {
    const line = keys.get(name);
    if (line === undefined) throw new Error(`the ssh key ${name} was not looked up`);
    return line;
  });
  return [...new Set(lines)];
}

/** JSON is YAML, whatever the texts in it are. */
function yaml(value: unknown): string {
  return `${JSON.stringify(value, null, 1)}\n`;
}

function hostnameOf(vm: SeedOwner, { hostname }: NewCloudInit): string {
  return hostname ?? vm.name;
}

/** What stands in the VM's spec: texts that may hold secrets by their digests. */
export function shownCloudInit(vm: SeedOwner, asked: NewCloudInit): CloudInit {
  return {
    hostname: hostnameOf(vm, asked),
    sshKeys: [...asked.sshKeys],
    users: asked.users.map(({ name, sshKeys, sudo }) => ({ name, sshKeys: [...sshKeys], sudo })),
    userData: hidden(asked.userData),
    networkConfig: hidden(asked.networkConfig),
  };
}

function hidden(text: string | null): CloudInit["userData"] {
  if (text === null) return null;
  const bytes = Buffer.from(text);
  return { sha256: createHash("sha256").update(bytes).digest("hex"), sizeBytes: bytes.length };
}

/** The seed as the CD-ROM that the guest gets: the same files give the same bytes. */
export function seedImage(files: SeedFiles): Uint8Array {
  const named: readonly (readonly [string, string | null])[] = [
    ["meta-data", files.metaData],
    ["user-data", files.userData],
    ["vendor-data", files.vendorData],
    ["network-config", files.networkConfig],
  ];
  return writeIso(
    LABEL,
    named.flatMap(([name, text]): IsoFile[] => (text === null ? [] : [{ name, content: Buffer.from(text) }])),
  );
}

/** The files as they are kept. */
export function sealSeed(box: SecretBox, files: SeedFiles): Uint8Array<ArrayBuffer> {
  return box.seal(JSON.stringify(files));
}

/** Throws when they were sealed under another key or were changed. */
export function openSeed(box: SecretBox, sealed: Uint8Array): SeedFiles {
  return SeedFiles.parse(JSON.parse(box.open(sealed)));
}

import { v7 } from "uuid";

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type VmId = Branded<"vm">;
export type HostId = Branded<"host">;
export type ImageId = Branded<"image">;
export type HostImageId = Branded<"hostImage">;
export type SshKeyId = Branded<"sshKey">;
export type NetworkId = Branded<"network">;
export type VolumeId = Branded<"volume">;
export type ProjectId = Branded<"project">;
export type TokenId = Branded<"token">;
export type OperationId = Branded<"operation">;
export type EventId = Branded<"event">;
export type WorkerId = Branded<"worker">;
export type InstallationId = Branded<"installation">;

/** A new UUIDv7: unique, never reused, and ordered by the time it was made (not by commit). */
export function newId<Id extends Branded<string>>(): Id {
  return v7() as Id;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** True for a lower-case UUID of any version: what separates an id from a name in a path. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** Brands a UUID read from a trusted place (a database row, a checked parameter). Throws on anything else. */
export function asId<Id extends Branded<string>>(text: string): Id {
  if (!isUuid(text)) throw new TypeError(`not a UUID: ${text.slice(0, 80)}`);
  return text as Id;
}

/** The structures that many calls share. Uuids are lower case with hyphens. */
import { array, type Codec, int, nullable, type StructOf, string, struct, uuid } from "./codec.ts";
import { typedValue } from "./typed-value.ts";

/** `id` is the running domain's number on its host, -1 while it is inactive. */
export const domain = struct({ name: string, uuid, id: int });
export const network = struct({ name: string, uuid });
export const networkFilter = struct({ name: string, uuid });
export const pool = struct({ name: string, uuid });
/** `pool` is the pool's name; `key` is unique on the host, a path for most kinds of pool. */
export const volume = struct({ pool: string, name: string, key: string });

export type Domain = { readonly name: string; readonly uuid: string; readonly id: number };
export type Network = { readonly name: string; readonly uuid: string };
export type Pool = { readonly name: string; readonly uuid: string };
export type Volume = { readonly pool: string; readonly name: string; readonly key: string };

const typedParam = struct({ field: string, value: typedValue });
export type TypedParam = StructOf<{ field: typeof string; value: typeof typedValue }>;

/** A list of named values whose types the sender chose. */
export function typedParams(maxItems: number): Codec<readonly TypedParam[]> {
  return array(typedParam, maxItems);
}

/** Named values as a map, for reading. 64-bit values are bigint. */
export function typedParamMap(
  params: readonly TypedParam[],
): ReadonlyMap<string, number | bigint | boolean | string> {
  return new Map(params.map((param) => [param.field, param.value.value]));
}

/** The error in a failed reply. `domain` and `network` of the structure are unused by the daemon. */
export const remoteError = struct({
  code: int,
  domain: int,
  message: nullable(string),
  level: int,
  dom: nullable(domain),
  str1: nullable(string),
  str2: nullable(string),
  str3: nullable(string),
  int1: int,
  int2: int,
  net: nullable(network),
});

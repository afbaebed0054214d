import { HypervisorError } from "../hypervisor.ts";
import type { XlPool } from "./uri.ts";

/**
 * The directory of a name, among those that the host's URI names.
 * @throws HypervisorError `not-found`
 */
export function poolNamed(pools: readonly XlPool[], name: string): XlPool {
  const pool = pools.find((candidate) => candidate.name === name);
  if (pool !== undefined) return pool;
  const known = pools.map((candidate) => candidate.name).join(", ");
  throw new HypervisorError(
    "not-found",
    `the host's URI names no pool '${name}', but ${known}: choose one of these, or add pool=${name}:/DIRECTORY to it`,
  );
}

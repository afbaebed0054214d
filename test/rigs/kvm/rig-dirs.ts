import { mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { findCgroups, removeCgroups } from "../../../src/setup/private-libvirt/cgroups.mjs";
import { isOwned, makeOwnedDir, ownedDirs } from "../owned-dirs.ts";

const PREFIX = "drover-kvm-";

/** Makes the directory of one host, which names this process as its owner. */
export function makeRigDir(): string {
  return makeOwnedDir(PREFIX);
}

/** The name of the host in a directory: unique on the machine, and short enough for a host name. */
export function rigName(dir: string): string {
  return basename(dir).toLowerCase();
}

/**
 * Removes what is left of hosts whose test process is gone. Their processes, namespaces and links ended with it: process
 * 1 of a host ends when its standard input does.
 */
export function sweepStaleRigs(): void {
  const stale = ownedDirs(PREFIX).filter((dir) => !isOwned(dir) && removeCgroups(rigName(dir)));
  for (const dir of stale) rmSync(dir, { recursive: true, force: true });
  // A directory may have been removed by hand: what is left then are empty cgroups.
  const known = new Set(ownedDirs(PREFIX).map(rigName));
  for (const name of findCgroups(PREFIX)) if (!known.has(name)) removeCgroups(name);
}

/** Makes a directory below a host's own, for keys: readable by its owner only. */
export function makeSecretDir(dir: string, name: string): string {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

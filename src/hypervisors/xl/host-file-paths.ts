import { isUuid } from "../../lib/ids.ts";
import { HypervisorError } from "../hypervisor.ts";

/** All that Drover keeps on a host lies below this directory. */
export const HOST_ROOT = "/var/lib/drover-xen";
/** The pool of a host whose URI names none. */
export const DEFAULT_POOL = { name: "default", path: `${HOST_ROOT}/pools/default` } as const;

/** Files of one installation on a host. */
export interface InstallationPaths {
  readonly directory: string;
  /** Holds the value of the latest owner of the host, and is locked by every change. */
  readonly fence: string;
  /** Holds one directory for each domain, named by its UUID: that it is there marks the domain as ours. */
  readonly domains: string;
}

/** Files of one domain on a host. */
export interface DomainPaths {
  readonly directory: string;
  /** The definition as Drover wrote it: see domain-definition.ts. */
  readonly definition: string;
  /** What xl is given: see xl-config.ts. */
  readonly config: string;
  /** The saved memory, whole. */
  readonly saved: string;
  /** The saved memory while it is written. */
  readonly savedPart: string;
  readonly lock: string;
}

/** @throws HypervisorError `invalid-spec` for an id that is no UUID */
export function installationPaths(installationId: string): InstallationPaths {
  const directory = `${HOST_ROOT}/${checkedId(installationId)}`;
  return { directory, fence: `${directory}/fence`, domains: `${directory}/domains` };
}

/** @throws HypervisorError `invalid-spec` for an id that is no UUID */
export function domainPaths(installationId: string, uuid: string): DomainPaths {
  const directory = `${installationPaths(installationId).domains}/${checkedId(uuid)}`;
  return {
    directory,
    definition: `${directory}/domain.json`,
    config: `${directory}/domain.cfg`,
    saved: `${directory}/saved`,
    savedPart: `${directory}/saved.part`,
    lock: `${directory}/lock`,
  };
}

/** An id becomes a directory's name: nothing but a UUID in lower case does. */
function checkedId(id: string): string {
  if (isUuid(id)) return id;
  throw new HypervisorError("invalid-spec", `'${id.slice(0, 80)}' is no UUID in lower case`);
}

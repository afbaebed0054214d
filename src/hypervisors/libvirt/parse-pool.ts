import { attribute, child, parseXml, sizeBytes, textAt, unreadable } from "./xml.ts";

/** What we take from a storage pool's XML. Sizes are zero while the pool is inactive. */
export interface PoolFacts {
  readonly name: string;
  readonly uuid: string | null;
  /** libvirt's type: `dir`, `fs`, `netfs`, `logical`, `rbd` … */
  readonly type: string;
  /** Where the pool's volumes appear on the host; null for a pool without a place in its file system. */
  readonly path: string | null;
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

const DOCUMENT = "pool";

/** Pools whose target path is a directory that holds plain files. */
const DIRECTORY_TYPES: ReadonlySet<string> = new Set(["dir", "fs", "netfs", "vstorage"]);

/** True when files, such as a console log, can be put into the pool's path. */
export function isDirectoryPool(pool: PoolFacts): pool is PoolFacts & { readonly path: string } {
  return DIRECTORY_TYPES.has(pool.type) && pool.path !== null;
}

/** Reads a storage pool's XML. */
export function parsePool(xml: string): PoolFacts {
  const root = parseXml(xml, DOCUMENT);
  const name = textAt(root, "name");
  const type = attribute(root, "type");
  if (name === undefined || type === undefined) throw unreadable(DOCUMENT, "it has no name or no type");
  const size = (element: string): number => {
    const found = child(root, element);
    return found === undefined ? 0 : sizeBytes(found, "bytes", DOCUMENT);
  };
  return {
    name,
    uuid: textAt(root, "uuid") ?? null,
    type,
    path: textAt(root, "target", "path") ?? null,
    capacityBytes: size("capacity"),
    availableBytes: size("available"),
  };
}

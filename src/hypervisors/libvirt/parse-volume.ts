import { attribute, child, parseXml, sizeBytes, textAt, unreadable } from "./xml.ts";

/** What we take from a volume's XML. */
export interface VolumeFacts {
  readonly name: string;
  /** `file`, `block`, `network` and so on. */
  readonly type: string;
  readonly path: string;
  /** What a guest sees as the disk's size. */
  readonly capacityBytes: number;
  /** What the volume takes in its pool now. */
  readonly allocationBytes: number;
  /** `raw`, `qcow2` and so on; null where the pool has no formats. */
  readonly format: string | null;
}

const DOCUMENT = "volume";

/** Reads a volume's XML. */
export function parseVolume(xml: string): VolumeFacts {
  const root = parseXml(xml, DOCUMENT);
  const name = textAt(root, "name");
  const path = textAt(root, "target", "path");
  if (name === undefined || path === undefined) throw unreadable(DOCUMENT, "it has no name or no path");
  const allocation = child(root, "allocation");
  return {
    name,
    type: attribute(root, "type") ?? "file",
    path,
    capacityBytes: sizeBytes(child(root, "capacity"), "bytes", DOCUMENT),
    allocationBytes: allocation === undefined ? 0 : sizeBytes(allocation, "bytes", DOCUMENT),
    format: attribute(child(root, "target", "format"), "type") ?? null,
  };
}

import { attribute, child, childrenNamed, parseXml } from "./xml.ts";

/** A disk of a domain, as it is attached. */
export interface AttachedDisk {
  /** `vda`, `sda` and so on. */
  readonly target: string;
  /** Of its file or device; null for one that has neither. */
  readonly path: string | null;
}

/** Reads the disks of a domain's XML, cdroms too: they have targets of their own. */
export function parseDisks(xml: string): readonly AttachedDisk[] {
  const devices = child(parseXml(xml, "domain"), "devices");
  return childrenNamed(devices, "disk").flatMap((disk) => {
    const target = attribute(child(disk, "target"), "dev");
    const source = child(disk, "source");
    const path = attribute(source, "file") ?? attribute(source, "dev") ?? null;
    return target === undefined ? [] : [{ target, path }];
  });
}

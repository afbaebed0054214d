import type { VolumeFormat, VolumeSpec } from "../hypervisor.ts";
import { writeXml, xmlNode } from "./xml-writer.ts";

/** Readable and writable by its owner alone; libvirt gives it to QEMU's user when a guest starts. */
const MODE = "0600";

/** What a volume reads where nothing was written to it. */
export interface BackingStore {
  readonly path: string;
  readonly format: VolumeFormat;
}

/** Writes a volume's XML: empty, or as what backs it is; taking space only as it is written. */
export function volumeXml({ name, format, capacityBytes }: VolumeSpec, backing?: BackingStore): string {
  // libvirt's default is the format of 2011, which lacks what current QEMU relies on.
  const compat = format === "qcow2" ? [xmlNode("compat", {}, "1.1")] : [];
  return writeXml(
    xmlNode("volume", {}, [
      xmlNode("name", {}, name),
      xmlNode("capacity", { unit: "bytes" }, String(capacityBytes)),
      xmlNode("allocation", { unit: "bytes" }, "0"),
      xmlNode("target", {}, [
        xmlNode("format", { type: format }),
        xmlNode("permissions", {}, [xmlNode("mode", {}, MODE)]),
        ...compat,
      ]),
      ...(backing === undefined ? [] : [backingStore(backing)]),
    ]),
  );
}

/** With its format: QEMU must not guess it from a content that a guest may have written. */
function backingStore({ path, format }: BackingStore) {
  return xmlNode("backingStore", {}, [xmlNode("path", {}, path), xmlNode("format", { type: format })]);
}

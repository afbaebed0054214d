import { create } from "xmlbuilder2";
import type { VolumeSpec } from "../hypervisor.ts";

/** Readable and writable by its owner alone; libvirt gives it to QEMU's user when a guest starts. */
const MODE = "0600";

/** Writes a volume's XML: empty, taking space only as it is written. */
export function volumeXml(spec: VolumeSpec): string {
  const volume = {
    name: spec.name,
    capacity: { "@unit": "bytes", "#": String(spec.capacityBytes) },
    allocation: { "@unit": "bytes", "#": "0" },
    target: {
      format: { "@type": spec.format },
      permissions: { mode: MODE },
      // libvirt's default is the old format, which current QEMU grows and checks worse.
      ...(spec.format === "qcow2" ? { compat: "1.1" } : {}),
    },
  };
  return create({ volume }).end({ headless: true, wellFormed: true });
}

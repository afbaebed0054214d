import { MARK_NAMESPACE } from "../../src/hypervisors/libvirt/ownership.ts";
import { newId, type VmId } from "../../src/lib/ids.ts";

/** A domain that somebody else made: without a mark, or with that of another installation. */
export function foreignDomainXml(type: "qemu" | "test", mark: string | null): { uuid: string; xml: string } {
  const uuid = newId<VmId>();
  const element = `<d:vm xmlns:d="${MARK_NAMESPACE}" installation="${mark ?? ""}" id="${uuid}"/>`;
  const metadata = mark === null ? "" : `<metadata>${element}</metadata>`;
  const xml = `<domain type="${type}">
    <name>foreign-${uuid.slice(-12)}</name><uuid>${uuid}</uuid>${metadata}
    <memory unit="MiB">64</memory><vcpu>1</vcpu><os><type>hvm</type></os>
  </domain>`;
  return { uuid, xml };
}

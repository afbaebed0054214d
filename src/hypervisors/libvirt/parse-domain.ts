import { MARK_ELEMENT, MARK_NAMESPACE, type OwnershipMark } from "./ownership.ts";
import { findMark } from "./parse-mark.ts";
import { attribute, child, childrenNamed, parseXml, sizeBytes, textAt, wholeNumber } from "./xml.ts";

/** What we take from a domain's XML. */
export interface DomainFacts extends OwnershipMark {
  /** Virtual CPUs that it uses now; more may be pluggable. */
  readonly cpuCount: number;
  /** The most memory that it may take, whatever its balloon says now. */
  readonly memoryMib: number;
}

const DOCUMENT = "domain";

/** Reads a domain's XML as virDomainGetXMLDesc gives it. Throws HypervisorError (`failed`) for anything else. */
export function parseDomain(xml: string): DomainFacts {
  const root = parseXml(xml, DOCUMENT);
  const vcpu = child(root, "vcpu");
  return {
    ...findMark(root, MARK_ELEMENT, MARK_NAMESPACE),
    cpuCount: wholeNumber(attribute(vcpu, "current") ?? textAt(root, "vcpu"), DOCUMENT, "<vcpu>"),
    memoryMib: Math.ceil(sizeBytes(child(root, "memory"), "KiB", DOCUMENT) / 2 ** 20),
  };
}

/** The MAC addresses of a domain's network interfaces, in lower case and in their order. */
export function parseMacAddresses(xml: string): readonly string[] {
  const interfaces = childrenNamed(child(parseXml(xml, DOCUMENT), "devices"), "interface");
  return interfaces.flatMap((nic) => attribute(child(nic, "mac"), "address")?.toLowerCase() ?? []);
}

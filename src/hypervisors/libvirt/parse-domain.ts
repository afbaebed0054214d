import { MARK_ELEMENT, MARK_NAMESPACE, NO_MARK, type OwnershipMark } from "./ownership.ts";
import { attribute, child, parseXml, sizeBytes, textAt, wholeNumber, type XmlElement } from "./xml.ts";

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
    ...findMark(child(root, "metadata")),
    cpuCount: wholeNumber(attribute(vcpu, "current") ?? textAt(root, "vcpu"), DOCUMENT, "<vcpu>"),
    memoryMib: Math.ceil(sizeBytes(child(root, "memory"), "KiB", DOCUMENT) / 2 ** 20),
  };
}

/** Finds our mark by its namespace: the prefix belongs to whoever wrote the document last. */
function findMark(metadata: XmlElement | undefined): OwnershipMark {
  const mark = metadata?.children.find((element) => isMark(element));
  if (mark === undefined) return NO_MARK;
  return { installationId: attribute(mark, "installation") ?? null, vmId: attribute(mark, "id") ?? null };
}

function isMark(element: XmlElement): boolean {
  const [prefix, local] = element.name.includes(":") ? element.name.split(":", 2) : ["", element.name];
  const declaration = prefix === "" || prefix === undefined ? "xmlns" : `xmlns:${prefix}`;
  return local === MARK_ELEMENT && attribute(element, declaration) === MARK_NAMESPACE;
}

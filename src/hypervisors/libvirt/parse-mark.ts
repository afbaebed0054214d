import { NO_MARK, type OwnershipMark } from "./ownership.ts";
import { attribute, child, type XmlElement } from "./xml.ts";

/** Finds our mark in a document's metadata by its namespace: the prefix belongs to whoever wrote it last. */
export function findMark(root: XmlElement, name: string, namespace: string): OwnershipMark {
  const mark = child(root, "metadata")?.children.find((element) => isMark(element, name, namespace));
  if (mark === undefined) return NO_MARK;
  return { installationId: attribute(mark, "installation") ?? null, vmId: attribute(mark, "id") ?? null };
}

function isMark(element: XmlElement, name: string, namespace: string): boolean {
  const [prefix, local] = element.name.includes(":") ? element.name.split(":", 2) : ["", element.name];
  const declaration = prefix === "" || prefix === undefined ? "xmlns" : `xmlns:${prefix}`;
  return local === name && attribute(element, declaration) === namespace;
}

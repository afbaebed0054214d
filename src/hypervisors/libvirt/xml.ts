import { messageOf } from "../../lib/errors.ts";
import { HypervisorError } from "../hypervisor.ts";
import { readXml, type XmlElement } from "./xml-reader.ts";

export type { XmlElement } from "./xml-reader.ts";

/** Reads a document with this root element. Anything else is a HypervisorError (`failed`). */
export function parseXml(text: string, root: string): XmlElement {
  let element: XmlElement;
  try {
    element = readXml(text);
  } catch (cause) {
    throw unreadable(root, messageOf(cause), cause);
  }
  if (element.name !== root) throw unreadable(root, `its root is <${element.name}>`);
  return element;
}

/** What a parser throws when a document lacks what libvirt always writes. */
export function unreadable(document: string, why: string, cause?: unknown): HypervisorError {
  return new HypervisorError("failed", `libvirt's <${document}> document cannot be read: ${why}`, {
    cause,
    retryable: false,
  });
}

/** The first child of this name, at the end of a path of names. */
export function child(element: XmlElement, ...path: readonly string[]): XmlElement | undefined {
  let current: XmlElement | undefined = element;
  for (const name of path) current = current?.children.find((candidate) => candidate.name === name);
  return current;
}

export function childrenNamed(element: XmlElement | undefined, name: string): readonly XmlElement[] {
  return element?.children.filter((candidate) => candidate.name === name) ?? [];
}

export function attribute(element: XmlElement | undefined, name: string): string | undefined {
  return element?.attributes.get(name);
}

/** The text at the end of a path, undefined when there is no such element or it is empty. */
export function textAt(element: XmlElement, ...path: readonly string[]): string | undefined {
  const text = child(element, ...path)?.text;
  return text === "" ? undefined : text;
}

/** A count written in digits. Throws for anything else. */
export function wholeNumber(text: string | undefined, document: string, what: string): number {
  const value = text !== undefined && /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw unreadable(document, `${what} is not a number`);
  return value;
}

/** Bytes in each unit that libvirt writes (virScaleInteger). Without a unit, memory is in KiB. */
const UNIT_BYTES: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  KB: 1000,
  k: 1024,
  KiB: 1024,
  MB: 1_000_000,
  M: 2 ** 20,
  MiB: 2 ** 20,
  GB: 1_000_000_000,
  G: 2 ** 30,
  GiB: 2 ** 30,
  T: 2 ** 40,
  TiB: 2 ** 40,
};

/**
 * The bytes that a size element says, such as `<memory unit='KiB'>1024</memory>`. What no number can hold exactly
 * (8 PiB and more) is cut to the largest that can.
 */
export function sizeBytes(
  element: XmlElement | undefined,
  defaultUnit: "bytes" | "KiB",
  document: string,
): number {
  const unit = UNIT_BYTES[attribute(element, "unit") ?? defaultUnit];
  if (unit === undefined) throw unreadable(document, "a size has an unknown unit");
  const digits = element?.text ?? "";
  if (!/^\d{1,20}$/.test(digits)) throw unreadable(document, `<${element?.name ?? "size"}> is not a number`);
  return Math.min(Number(digits) * unit, Number.MAX_SAFE_INTEGER);
}

/**
 * Writes XML for libvirt. Every `&` is escaped, also where it looks like a reference already: a kernel's command line
 * arrives as it was given. (The writers on npm leave such text as it is.)
 */

/** An element to write: its attributes, and its children in order or the text inside. */
export interface XmlNode {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly content: readonly XmlNode[] | string;
}

/** The text holds a character that XML 1.0 has no way to write. */
export class XmlCharacterError extends Error {
  override readonly name = "XmlCharacterError";
}

export function xmlNode(
  name: string,
  attributes: Readonly<Record<string, string>> = {},
  content: readonly XmlNode[] | string = [],
): XmlNode {
  return { name, attributes, content };
}

/** Writes an element and all inside it, one per line. Throws XmlCharacterError. */
export function writeXml(node: XmlNode, indent = ""): string {
  const attributes = Object.entries(node.attributes).map(([key, value]) => ` ${key}="${escape(value)}"`);
  const start = `${indent}<${node.name}${attributes.join("")}`;
  if (node.content.length === 0) return `${start}/>\n`;
  if (typeof node.content === "string") return `${start}>${escape(node.content)}</${node.name}>\n`;
  const inside = node.content.map((child) => writeXml(child, `${indent}  `));
  return `${start}>\n${inside.join("")}${indent}</${node.name}>\n`;
}

/** What XML 1.0 cannot hold, not even as a reference: most controls, lone surrogates and two non-characters. */
const FORBIDDEN = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/u;
const SPECIAL = /[&<>"'\t\n\r]/g;
const REFERENCES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** White space is written as references, for a reader may turn it into plain spaces. */
function escape(text: string): string {
  const forbidden = FORBIDDEN.exec(text);
  if (forbidden !== null) {
    const code = (forbidden[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    throw new XmlCharacterError(`the character U+${code} cannot be written in XML`);
  }
  return text.replace(SPECIAL, (character) => REFERENCES[character] ?? `&#${character.codePointAt(0) ?? 0};`);
}

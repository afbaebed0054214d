import { SaxesParser } from "saxes";

/** Reads the XML that libvirt writes into a tree. A document type is refused, so nothing can expand. */

/** An element. Names keep their prefix; `text` is that directly inside, trimmed. */
export interface XmlElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  readonly text: string;
}

/** The text is not a document that libvirt would write; the message says where. */
export class XmlSyntaxError extends Error {
  override readonly name = "XmlSyntaxError";
}

interface OpenElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: XmlElement[];
  text: string;
}

/** No document of libvirt's nests deeper than a dozen elements. */
const MAX_DEPTH = 64;

/** Reads a document and returns its root element. Throws XmlSyntaxError. */
export function readXml(text: string): XmlElement {
  const parser = new SaxesParser();
  const open: OpenElement[] = [];
  const roots: XmlElement[] = [];
  parser.on("error", (error) => {
    throw new XmlSyntaxError(error.message);
  });
  parser.on("doctype", () => {
    throw new XmlSyntaxError("a document type is not taken");
  });
  parser.on("opentag", ({ name, attributes }) => {
    if (open.length >= MAX_DEPTH) throw new XmlSyntaxError("elements are nested too deeply");
    open.push({ name, attributes: new Map(Object.entries(attributes)), children: [], text: "" });
  });
  const append = (part: string): void => {
    const element = open.at(-1);
    if (element !== undefined) element.text += part;
  };
  parser.on("text", append);
  parser.on("cdata", append);
  parser.on("closetag", () => {
    const element = open.pop();
    if (element === undefined) return;
    const closed: XmlElement = { ...element, text: element.text.trim() };
    const parent = open.at(-1);
    (parent?.children ?? roots).push(closed);
  });
  parser.write(text).close();
  const [root] = roots;
  if (root === undefined) throw new XmlSyntaxError("the document has no element");
  return root;
}

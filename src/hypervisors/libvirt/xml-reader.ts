/**
 * A strict reader for the XML that libvirt writes: elements, attributes, text, comments, CDATA, character
 * references and the five entities of XML. A document type is refused, so nothing can expand. Written here because
 * the readers on npm let mismatched tags through, and take ten times as long over a thousand domains.
 */

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

const NAME = /[A-Za-z_][\w.:-]*/y;
const ATTRIBUTE = /\s+([A-Za-z_][\w.:-]*)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/y;
const TAG_END = /\s*(\/?)>/y;
const SPACE = /\s*/y;
const REFERENCE = /&(?:#(\d{1,7})|#x([\dA-Fa-f]{1,6})|(lt|gt|amp|quot|apos));|&/g;
const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** No document of libvirt's nests deeper than a dozen elements. */
const MAX_DEPTH = 64;

/** Reads a document and returns its root element. Throws XmlSyntaxError. */
export function readXml(text: string): XmlElement {
  return new Reader(text).document();
}

class Reader {
  readonly #text: string;
  readonly #open: OpenElement[] = [];
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): XmlElement {
    if (this.#text.startsWith("<?xml")) this.#skipPast("?>");
    this.#skipMisc();
    let root: XmlElement | null = null;
    do {
      root = this.#next();
    } while (root === null);
    this.#skipMisc();
    if (this.#position !== this.#text.length) throw this.#error("something follows the root element");
    return root;
  }

  /** Reads one tag or piece of text. Returns the root when it was closed. */
  #next(): XmlElement | null {
    const text = this.#text;
    if (this.#position >= text.length) throw this.#error("the document ends too early");
    if (!text.startsWith("<", this.#position)) return this.#characters();
    if (text.startsWith("</", this.#position)) return this.#closeTag();
    if (text.startsWith("<!--", this.#position)) return this.#comment();
    if (text.startsWith("<![CDATA[", this.#position)) return this.#characterData();
    return this.#openTag();
  }

  #openTag(): XmlElement | null {
    this.#position += 1;
    const name = this.#match(NAME)?.[0];
    if (name === undefined) throw this.#error("an element's name is expected");
    const attributes = new Map<string, string>();
    for (let found = this.#match(ATTRIBUTE); found !== null; found = this.#match(ATTRIBUTE)) {
      const [, key = "", double, single] = found;
      if (attributes.has(key)) throw this.#error(`attribute ${key} is given twice`);
      attributes.set(key, this.#decode(double ?? single ?? ""));
    }
    const end = this.#match(TAG_END);
    if (end === null) throw this.#error(`the tag <${name}> does not end`);
    if (this.#open.length >= MAX_DEPTH) throw this.#error("elements are nested too deeply");
    this.#open.push({ name, attributes, children: [], text: "" });
    return end[1] === "/" ? this.#close() : null;
  }

  #closeTag(): XmlElement | null {
    this.#position += 2;
    const name = this.#match(NAME)?.[0];
    if (this.#match(TAG_END)?.[1] !== "" || name === undefined)
      throw this.#error("a closing tag is malformed");
    if (this.#open.at(-1)?.name !== name) throw this.#error(`</${name}> closes nothing`);
    return this.#close();
  }

  #close(): XmlElement | null {
    const element = this.#open.pop();
    if (element === undefined) throw this.#error("there is no element to close");
    const closed: XmlElement = { ...element, text: element.text.trim() };
    const parent = this.#open.at(-1);
    if (parent === undefined) return closed;
    parent.children.push(closed);
    return null;
  }

  #characters(): null {
    const end = this.#text.indexOf("<", this.#position);
    const text = this.#text.slice(this.#position, end < 0 ? undefined : end);
    this.#append(this.#decode(text));
    this.#position += text.length;
    return null;
  }

  #characterData(): null {
    const from = this.#position + "<![CDATA[".length;
    this.#skipPast("]]>");
    this.#append(this.#text.slice(from, this.#position - "]]>".length));
    return null;
  }

  #comment(): null {
    this.#skipPast("-->");
    return null;
  }

  #append(text: string): void {
    const element = this.#open.at(-1);
    if (element === undefined) throw this.#error("there is text outside of the root element");
    element.text += text;
  }

  #decode(text: string): string {
    if (!text.includes("&")) return text;
    return text.replace(REFERENCE, (_all, decimal?: string, hex?: string, name?: string) => {
      if (name !== undefined) return ENTITIES[name] ?? "";
      const codePoint = decimal === undefined ? Number.parseInt(hex ?? "", 16) : Number(decimal);
      if (!(codePoint > 0 && codePoint <= 0x10_ffff)) throw this.#error("a reference is malformed");
      return String.fromCodePoint(codePoint);
    });
  }

  /** Spaces and comments around the root. */
  #skipMisc(): void {
    this.#match(SPACE);
    while (this.#text.startsWith("<!--", this.#position)) {
      this.#comment();
      this.#match(SPACE);
    }
  }

  #skipPast(mark: string): void {
    const found = this.#text.indexOf(mark, this.#position);
    if (found < 0) throw this.#error(`'${mark}' is missing`);
    this.#position = found + mark.length;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#position;
    const found = pattern.exec(this.#text);
    if (found !== null) this.#position = pattern.lastIndex;
    return found;
  }

  #error(what: string): XmlSyntaxError {
    const line = this.#text.slice(0, this.#position).split("\n").length;
    return new XmlSyntaxError(`${what} (line ${line})`);
  }
}

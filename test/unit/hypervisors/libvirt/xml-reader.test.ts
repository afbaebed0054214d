import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readXml, type XmlElement, XmlSyntaxError } from "../../../../src/hypervisors/libvirt/xml-reader.ts";
import {
  writeXml,
  XmlCharacterError,
  type XmlNode,
  xmlNode,
} from "../../../../src/hypervisors/libvirt/xml-writer.ts";

const name = fc.stringMatching(/^[a-z][a-z0-9_-]{0,6}$/);
const text = fc
  .string({ unit: fc.constantFrom("a", "<", ">", "&", "'", '"', "é", "𝒳", "\n", "\t", " ", "]]>", "&#38;") })
  .map((value) => value.trim());

interface Tree {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly Tree[];
  readonly text: string;
}

const attributes = fc.dictionary(name, text, { maxKeys: 3, noNullPrototype: true });

/** An element has text or children: the writer puts each child on a line of its own. */
const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({ name, attributes, children: fc.constant([]), text }),
    fc.record({
      name,
      attributes,
      children: fc.array(tie("tree"), { maxLength: 3 }),
      text: fc.constant(""),
    }),
  ),
}));

function write({ name: tag, attributes, children, text: inside }: Tree): XmlNode {
  return xmlNode(tag, attributes, inside === "" ? children.map(write) : inside);
}

function toTree(element: XmlElement): Tree {
  return {
    name: element.name,
    attributes: Object.fromEntries(element.attributes),
    children: element.children.map(toTree),
    text: element.text,
  };
}

describe("the XML writer", () => {
  it("keeps white space in attributes, which a reader may fold", () => {
    expect(writeXml(xmlNode("a", { b: " 1\t\n\r" }))).toBe('<a b=" 1&#9;&#10;&#13;"/>\n');
  });

  it.each(["\u0000", "\u0001", "\u000b", "\ufffe", "\ud800", "a\udc00"])(
    "refuses what XML cannot hold",
    (bad) => {
      expect(() => writeXml(xmlNode("a", {}, bad))).toThrow(XmlCharacterError);
      expect(() => writeXml(xmlNode("a", { b: bad }))).toThrow("U+");
    },
  );
});

describe("the XML reader", () => {
  it("reads back what a writer wrote", () => {
    fc.assert(
      fc.property(tree, (element) => {
        expect(toTree(readXml(writeXml(write(element))))).toEqual(element);
      }),
    );
  });

  it("reads declarations, comments, CDATA and character references", () => {
    const root = readXml(
      `<?xml version="1.0"?>\n<!-- a > b --><a b='1 &lt; "2"' c:d="&#xe9;&#10;"><!-- x --><e/>t<![CDATA[<&>]]>&amp;amp;</a>\n<!-- end -->`,
    );
    expect(toTree(root)).toEqual({
      name: "a",
      attributes: { b: '1 < "2"', "c:d": "é\n" },
      children: [{ name: "e", attributes: {}, children: [], text: "" }],
      text: "t<&>&amp;",
    });
  });

  it.each([
    [""],
    ["text"],
    ["<a>"],
    ["<a></b>"],
    ["<a><b></a></b>"],
    ["<a></a><b/>"],
    ["<a/>text"],
    ["</a>"],
    ["<a b=1/>"],
    ["<a b='1' b='2'/>"],
    ["<a b='<'/>"],
    ["<a>&nbsp;</a>"],
    ["<a>&</a>"],
    ["<a>&#0;</a>"],
    ["<a>&#x110000;</a>"],
    ["<a><!-- </a>"],
    ['<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'],
    ["<a ".repeat(3)],
    ["<a>".repeat(100)],
  ])("refuses %s", (document) => {
    expect(() => readXml(document)).toThrow(XmlSyntaxError);
  });

  it("says where", () => {
    expect(() => readXml("<a>\n<b>\n</c>\n</a>")).toThrow("3:");
  });

  it("gives a tree or its own error for any text", () => {
    const any = fc.oneof(
      fc.string(),
      fc.string({
        unit: fc.constantFrom("<", ">", "/", "a", "b", "=", "'", '"', "&", ";", "!", "-", "[", "]", "?", " "),
      }),
    );
    fc.assert(
      fc.property(any, (document) => {
        try {
          expect(readXml(document).name).not.toBe("");
        } catch (error) {
          expect(error).toBeInstanceOf(XmlSyntaxError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

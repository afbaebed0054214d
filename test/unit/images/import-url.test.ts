import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseImportAllowList } from "../../../src/images/address-guard.ts";
import { displayUrl, hostOf, parseImportUrl, refusalOfHost } from "../../../src/images/import-url.ts";

const nothingAllowed = parseImportAllowList([]);

function urlOf(text: string): URL {
  const parsed = parseImportUrl(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.url;
}

describe("parseImportUrl", () => {
  it.each([
    ["ftp://example.org/x", /https:\/\//],
    ["file:///etc/passwd", /https:\/\//],
    ["gopher://127.0.0.1:70/x", /https:\/\//],
    ["/relative", /absolute/],
    ["https://", /absolute/],
    ["https://user:secret@example.org/x", /user name or password/],
    ["https://user@example.org/x", /user name or password/],
    [`https://example.org/${"x".repeat(2048)}`, /2048/],
  ])("refuses %s", (text, reason) => {
    expect(parseImportUrl(text)).toMatchObject({
      ok: false,
      reason: expect.stringMatching(reason) as string,
    });
  });

  it("leaves the fragment out and keeps the query", () => {
    expect(urlOf("https://example.org/disk.qcow2?signature=s#part").href).toBe(
      "https://example.org/disk.qcow2?signature=s",
    );
  });

  it("shows no query, which may be a signature", () => {
    expect(displayUrl(urlOf("https://example.org:8443/disk.qcow2?signature=s"))).toBe(
      "https://example.org:8443/disk.qcow2",
    );
  });

  it("follows relative redirects", () => {
    expect(parseImportUrl("../b", new URL("https://example.org/x/a"))).toMatchObject({
      ok: true,
      url: new URL("https://example.org/b"),
    });
  });
});

describe("refusalOfHost", () => {
  it.each([
    "http://127.0.0.1/x",
    "http://2130706433/x",
    "http://0x7f.1/x",
    "http://017700000001/x",
    "http://127.1/x",
    "http://[::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[0:0:0:0:0:ffff:7f00:1]/x",
    "http://①②⑦.0.0.1/x",
    "http://169.254.169.254/latest/meta-data",
    "http://[fd00:ec2::254]/latest",
    "http://0/x",
  ])("sees through the spelling of %s", (text) => {
    expect(refusalOfHost(urlOf(text), nothingAllowed)).not.toBeNull();
  });

  it("leaves names to their resolution", () => {
    expect(refusalOfHost(urlOf("http://localhost/x"), nothingAllowed)).toBeNull();
  });

  it("knows the host of a URL without brackets and final dot", () => {
    expect(hostOf(urlOf("https://[2606:4700::1111]/"))).toBe("2606:4700::1111");
    expect(hostOf(urlOf("https://Example.ORG./"))).toBe("example.org");
  });

  it("never lets a private IPv4 address pass, written as one number", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xff_ff_ff }), (low) => {
        expect(refusalOfHost(urlOf(`http://${0x0a_00_00_00 + low}/`), nothingAllowed)).toMatch(/private/);
      }),
    );
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  parseAddress,
  parseImportAllowList,
  parsePrefix,
  refusalOfAddress,
} from "../../../src/images/address-guard.ts";

const FORBIDDEN: readonly (readonly [string, RegExp])[] = [
  ["127.0.0.1", /loopback/],
  ["127.255.255.254", /loopback/],
  ["0.0.0.0", /unspecified/],
  ["0.1.2.3", /unspecified/],
  ["10.0.0.1", /private/],
  ["172.16.0.1", /private/],
  ["172.31.255.255", /private/],
  ["192.168.1.1", /private/],
  ["169.254.169.254", /link-local.*metadata/],
  ["100.64.0.1", /carrier/],
  ["100.127.255.255", /carrier/],
  ["198.18.0.1", /benchmark/],
  ["192.0.2.1", /documentation/],
  ["224.0.0.251", /multicast/],
  ["240.0.0.1", /reserved/],
  ["255.255.255.255", /reserved/],
  ["::", /unspecified/],
  ["::1", /loopback/],
  ["fe80::1", /link-local/],
  ["fe80::1%eth0", /link-local/],
  ["fc00::1", /unique local/],
  ["fd12:3456::1", /unique local/],
  ["ff02::1", /multicast/],
  ["fec0::1", /reserved/],
  ["::ffff:127.0.0.1", /loopback/],
  ["::ffff:7f00:1", /loopback/],
  ["::ffff:169.254.169.254", /metadata/],
  ["::127.0.0.1", /reserved/],
  ["64:ff9b::10.0.0.1", /private/],
  ["64:ff9b::a9fe:a9fe", /metadata/],
  ["64:ff9b:1::1", /NAT64/],
  ["2002:7f00:1::1", /6to4/],
  ["2001:0:4136:e378:8000:63bf:3fff:fdd2", /Teredo/],
  ["2001:db8::1", /documentation/],
  ["not an address", /can be read/],
  ["", /can be read/],
];

const PUBLIC = [
  "1.1.1.1",
  "8.8.8.8",
  "100.63.255.255",
  "100.128.0.1",
  "172.15.255.255",
  "172.32.0.1",
  "223.255.255.255",
  "2606:4700:4700::1111",
  "2a00:1450:4001:82b::200e",
  "::ffff:1.1.1.1",
  "64:ff9b::1.1.1.1",
];

describe("refusalOfAddress", () => {
  it.each(FORBIDDEN)("forbids %s", (address, reason) => {
    expect(refusalOfAddress(address)).toMatch(reason);
  });

  it.each(PUBLIC)("lets %s pass", (address) => {
    expect(refusalOfAddress(address)).toBeNull();
  });

  it("says the same of an IPv4 address and of its forms within IPv6", () => {
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        const plain = refusalOfAddress(address);
        expect(refusalOfAddress(`::ffff:${address}`)).toBe(plain);
        expect(refusalOfAddress(`64:ff9b::${address}`)).toBe(plain);
      }),
    );
  });

  it("lets no IPv6 address pass that is not global unicast or stands for a public IPv4 address", () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        if (refusalOfAddress(address) !== null) return;
        const value = parseAddress(address)?.value ?? 0n;
        const embeds = value >> 32n === 0xff_ffn || value >> 32n === 0x64_ff9b_0000_0000_0000_0000n;
        expect(value >> 125n === 1n || embeds).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  it("allows what the operator allows, and nothing beside it", () => {
    const { prefixes } = parseImportAllowList(["10.1.0.0/16", "fd00::/8", "127.0.0.1"]);
    expect(refusalOfAddress("10.1.2.3", prefixes)).toBeNull();
    expect(refusalOfAddress("::ffff:10.1.2.3", prefixes)).toBeNull();
    expect(refusalOfAddress("10.2.0.1", prefixes)).toMatch(/private/);
    expect(refusalOfAddress("fd00::5", prefixes)).toBeNull();
    expect(refusalOfAddress("fc00::5", prefixes)).toMatch(/unique local/);
    expect(refusalOfAddress("127.0.0.1", prefixes)).toBeNull();
    expect(refusalOfAddress("127.0.0.2", prefixes)).toMatch(/loopback/);
  });
});

describe("parseImportAllowList", () => {
  it("tells hosts from prefixes", () => {
    const list = parseImportAllowList(["mirror.Example.org", "10.0.0.0/8", "localhost"]);
    expect([...list.hosts]).toEqual(["mirror.example.org", "localhost"]);
    expect(list.prefixes).toEqual([parsePrefix("10.0.0.0/8")]);
  });

  it.each([
    "10.0.0.0/33",
    "10.0.0/8",
    "300.1.1.1",
    "::/129",
    "http://x",
    "a b",
    "-a.org",
    "",
    "10.0.0.0/8/8",
    "1.2.3",
  ])("refuses %j and names it", (entry) => {
    expect(() => parseImportAllowList([entry])).toThrow(`"${entry}"`);
  });
});

describe("parseAddress", () => {
  it.each([
    ["1.2.3.4", 4, 0x01_02_03_04n],
    ["::1", 6, 1n],
    ["::ffff:1.2.3.4", 6, 0xffff_0102_0304n],
    ["1:2:3:4:5:6:7:8", 6, 0x0001_0002_0003_0004_0005_0006_0007_0008n],
    ["1::8", 6, (1n << 112n) | 8n],
    ["1::", 6, 1n << 112n],
  ] as const)("reads %s", (text, family, value) => {
    expect(parseAddress(text)).toEqual({ family, value });
  });

  it("reads any spelling of an IPv6 address as the URL parser does", () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const canonical = new URL(`http://[${text}]/`).hostname.slice(1, -1);
        expect(parseAddress(text)).toEqual(parseAddress(canonical));
      }),
    );
  });
});

import { isIPv6 } from "node:net";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  eui64Address,
  formatIp,
  formatIpv4,
  formatIpv6,
  lastOf,
  parseIp,
  parseIpv4,
  parseIpv6,
  parseSubnet,
} from "../../../src/lib/ip-address.ts";

const ipv4 = fc.bigInt({ min: 0n, max: (1n << 32n) - 1n });
// Many zeros, so that runs of them are met.
const ipv6 = fc
  .array(fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 65_535n })), { minLength: 8, maxLength: 8 })
  .map((groups) => groups.reduce((value, group) => value * 65_536n + group, 0n));

describe("an address", () => {
  test("comes back from its text", () => {
    fc.assert(
      fc.property(ipv4, ipv6, (four, six) => {
        expect(parseIpv4(formatIpv4(four))).toBe(four);
        expect(parseIpv6(formatIpv6(six))).toBe(six);
        expect(isIPv6(formatIpv6(six))).toBe(true);
        expect(parseIp(formatIp("ipv4", four))).toEqual({ family: "ipv4", value: four });
        expect(parseIp(formatIp("ipv6", six))).toEqual({ family: "ipv6", value: six });
      }),
    );
  });

  // RFC 5952's own examples.
  test.each([
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:DB8::0001", "2001:db8::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["::1", "::1"],
    ["fe80::", "fe80::"],
  ])("%s is written %s", (text, canonical) => {
    expect(formatIpv6(parseIpv6(text) ?? -1n)).toBe(canonical);
  });

  test.each(["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.-4", " 1.2.3.4", "1.2.3.4/24"])(
    "%j is no IPv4 address",
    (text) => {
      expect(parseIpv4(text)).toBeNull();
    },
  );

  test.each([":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7::8", "::12345", "::1%eth0", "::1.2.3.4"])(
    "%j is no IPv6 address",
    (text) => {
      expect(parseIpv6(text)).toBeNull();
    },
  );

  test("of no text makes the parser throw", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parseIp(text);
        if (parsed !== null) expect(parseIp(formatIp(parsed.family, parsed.value))).toEqual(parsed);
      }),
    );
  });
});

describe("a subnet", () => {
  test("has a first and a last address", () => {
    const subnet = parseSubnet("10.20.0.0/22");
    expect(subnet).toEqual({ family: "ipv4", first: parseIpv4("10.20.0.0"), prefix: 22 });
    expect(subnet === null ? null : formatIpv4(lastOf(subnet))).toBe("10.20.3.255");
    expect(parseSubnet("fd00::/64")).toEqual({ family: "ipv6", first: parseIpv6("fd00::"), prefix: 64 });
  });

  test.each(["10.20.0.1/24", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0", "10.0.0.0/24/1", "fd00::1/64", "x/8"])(
    "is not %s",
    (text) => {
      expect(parseSubnet(text)).toBeNull();
    },
  );

  test("gives a guest the address that follows from its MAC address", () => {
    const subnet = parseSubnet("fd00:20::/64");
    if (subnet === null) throw new Error("no subnet");
    // As Linux makes it: the seventh bit is turned, ff:fe comes into the middle.
    expect(formatIpv6(eui64Address(subnet, "52:54:00:11:22:33"))).toBe("fd00:20::5054:ff:fe11:2233");
  });
});

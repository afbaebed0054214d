import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isBridgeName, parseXlUri, XL_SCHEMES } from "../../../../src/hypervisors/xl/uri.ts";

function parsed(text: string) {
  const uri = parseXlUri(text);
  if ("error" in uri) throw new Error(uri.error);
  return uri;
}

function refusal(text: string): string {
  const uri = parseXlUri(text);
  if (!("error" in uri)) throw new Error(`${text} was accepted`);
  return uri.error;
}

const DEFAULT_POOLS = [{ name: "default", path: "/var/lib/drover-xen/pools/default" }];

describe("a Xen host's URI", () => {
  it.each([
    ["xl:///", { kind: "local" }],
    ["xl://", { kind: "local" }],
    ["xl+ssh://n1.example", { kind: "ssh", user: "root", host: "n1.example", port: 22 }],
    ["xl+ssh://admin@10.0.0.7:2222/", { kind: "ssh", user: "admin", host: "10.0.0.7", port: 2222 }],
    ["xl+ssh://[fe80::1]", { kind: "ssh", user: "root", host: "fe80::1", port: 22 }],
  ])("%s is understood, with the pool that Drover makes itself", (text, endpoint) => {
    expect(parsed(text)).toMatchObject({ endpoint, pools: DEFAULT_POOLS, networks: [] });
  });

  it("names pools and networks", () => {
    const uri = parsed(
      "xl:///?pool=fast:/srv/nvme&network=lan:xenbr0&pool=big:/srv/disks.1&network=dmz:br-dmz",
    );
    expect(uri.pools).toEqual([
      { name: "big", path: "/srv/disks.1" },
      { name: "fast", path: "/srv/nvme" },
    ]);
    expect(uri.networks).toEqual([
      { name: "dmz", bridge: "br-dmz" },
      { name: "lan", bridge: "xenbr0" },
    ]);
  });

  it.each([
    ["xl://", "xl:///"],
    ["XL+SSH://Root@N1.Example:22", "xl+ssh://Root@n1.example/"],
    ["xl+ssh://n1", "xl+ssh://root@n1/"],
    ["xl+ssh://[::1]:1/", "xl+ssh://root@[::1]:1/"],
    [
      "xl:///?network=b:br1&pool=z:/z&network=a:br1&pool=a:/a",
      "xl:///?pool=a:/a&pool=z:/z&network=a:br1&network=b:br1",
    ],
    ["xl:///?pool=a%3A%2Fa", "xl:///?pool=a:/a"],
  ])("%s has the canonical form %s, which stays as it is", (text, canonical) => {
    expect(parsed(text).canonical).toBe(canonical);
    expect(parsed(canonical).canonical).toBe(canonical);
  });

  it.each([
    ["xl:///?command=/bin/sh", "'command'"],
    ["xl:///?sudo=1", "'sudo'"],
    ["xl:///?pool=", "'pool' must be"],
    ["xl:///?pool=a", "'pool' must be"],
    ["xl:///?pool=a:", "'pool' must be"],
    ["xl:///?pool=a:srv", "'pool' must be"],
    ["xl:///?pool=a:/", "'pool' must be"],
    ["xl:///?pool=a:/srv/", "'pool' must be"],
    ["xl:///?pool=a:/srv//x", "'pool' must be"],
    ["xl:///?pool=a:/srv/../etc", "'pool' must be"],
    ["xl:///?pool=a:/srv/.hidden", "'pool' must be"],
    ["xl:///?pool=a:/srv/-rf", "'pool' must be"],
    ["xl:///?pool=a:/srv,x", "'pool' must be"],
    ["xl:///?pool=a:/srv%0ax", "'pool' must be"],
    ["xl:///?pool=a b:/srv", "'pool' must be"],
    ["xl:///?pool=a:/a&pool=a:/b", "pool 'a' is given twice"],
    ["xl:///?pool=a:/a&pool=b:/a", "the pool directory '/a' is given twice"],
    ["xl:///?network=a", "'network' must be"],
    ["xl:///?network=a:br0,script=x", "'network' must be"],
    ["xl:///?network=a:abcdefghijklmnop", "'network' must be"],
    ["xl:///?network=a:-br0", "'network' must be"],
    ["xl:///?network=a:b&network=a:c", "network 'a' is given twice"],
    ["xl+ssh://root:secret@n1", "password"],
    ["xl+ssh://n1/system", "leave '/system' out"],
    ["xl+ssh:///", "host is missing"],
    ["xl://n1", "name the transport"],
    ["xl+ssh://-oProxyCommand=id", "host must be"],
    ["xl+ssh://n1%2f", "host must be"],
    ["xl+ssh://-l@n1", "user name may hold"],
    ["xl+ssh://n1:0", "port 0"],
    ["xl:///#x", "'#'"],
    ["xen+ssh://n1", "is not one of xl, xl+ssh"],
    ["xl:n1", "not a URI"],
    ["n1.example", "not a URI"],
    ["", "not a URI"],
  ])("%s is refused: %s", (text, why) => {
    expect(refusal(text)).toContain(why);
  });

  it("never throws, and what it accepts has a canonical form that means the same", () => {
    const scheme = fc.constantFrom(...XL_SCHEMES, "xl", "qemu+ssh");
    const rest = fc.oneof(
      fc.constant(""),
      fc.string(),
      fc.webAuthority({ withIPv4: true, withIPv6: true, withPort: true, withUserInfo: true }),
    );
    const parameter = fc
      .tuple(
        fc.constantFrom("pool", "network", "x"),
        fc.constantFrom("a", "b", "", "a b"),
        fc.constantFrom("/a", "/a/b", "br0", "", "/a,b"),
      )
      .map(([key, name, value]) => `${key}=${name}:${value}`);
    const uri = fc
      .tuple(scheme, rest, fc.constantFrom("", "/", "/x"), fc.array(parameter, { maxLength: 3 }))
      .map(([word, host, path, query]) => `${word}://${host}${path}?${query.join("&")}`);
    fc.assert(
      fc.property(fc.oneof(uri, fc.string()), (text) => {
        const first = parseXlUri(text);
        if ("error" in first) return;
        expect(parsed(first.canonical)).toEqual(first);
      }),
    );
  });
});

describe("a bridge's name", () => {
  it.each(["xenbr0", "br-lan", "br0.7", "_x"])("%s is one", (name) => {
    expect(isBridgeName(name)).toBe(true);
  });

  it.each(["", "a b", "a,b", "a/b", "..", "-x", "a".repeat(16), "a\n"])("%j is none", (name) => {
    expect(isBridgeName(name)).toBe(false);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { libvirtDriver } from "../../../../src/hypervisors/libvirt/driver.ts";
import { LIBVIRT_SCHEMES, parseLibvirtUri } from "../../../../src/hypervisors/libvirt/uri.ts";

function parsed(text: string) {
  const uri = parseLibvirtUri(text);
  if ("error" in uri) throw new Error(uri.error);
  return uri;
}

function refusal(text: string): string {
  const uri = parseLibvirtUri(text);
  if (!("error" in uri)) throw new Error(`${text} was accepted`);
  return uri.error;
}

describe("a host's URI", () => {
  it.each([
    ["qemu:///system", { kind: "unix", socket: null, mode: "auto" }],
    ["qemu+unix:///system?socket=/run/x/sock", { kind: "unix", socket: "/run/x/sock", mode: "auto" }],
    ["qemu+tls://n1.example/system", { kind: "tls", host: "n1.example", port: 16514 }],
    ["qemu+tls://10.0.0.7:17000/system", { kind: "tls", host: "10.0.0.7", port: 17000 }],
    ["qemu+tcp://n1/system", { kind: "tcp", host: "n1", port: 16509 }],
    [
      "qemu+ssh://root@n1.example:2222/system?socket=/run/s",
      { kind: "ssh", user: "root", host: "n1.example", port: 2222, socket: "/run/s", mode: "auto" },
    ],
    [
      "qemu+ssh://[fe80::1]/system?mode=legacy",
      { kind: "ssh", user: null, host: "fe80::1", port: null, socket: null, mode: "legacy" },
    ],
  ])("%s is understood", (text, endpoint) => {
    expect(parsed(text)).toMatchObject({ endpoint, open: "qemu:///system" });
  });

  it("of the test driver opens the mock", () => {
    expect(parsed("test+unix:///default?socket=/run/s")).toMatchObject({
      open: "test:///default",
      endpoint: { kind: "unix", socket: "/run/s" },
    });
  });

  it.each([
    ["QEMU+SSH://Root@N1.Example:22/system", "qemu+ssh://Root@n1.example/system"],
    ["qemu+unix:///system", "qemu:///system"],
    ["qemu:///system?socket=/run/s&mode=auto", "qemu+unix:///system?socket=/run/s"],
    ["qemu:///system?mode=direct", "qemu:///system?mode=direct"],
    ["qemu+tls://n1:16514/system", "qemu+tls://n1/system"],
    ["qemu+tcp://[::1]:1/system", "qemu+tcp://[::1]:1/system"],
    ["qemu+ssh://n1/system?socket=/run/s&mode=legacy", "qemu+ssh://n1/system?mode=legacy&socket=/run/s"],
  ])("%s has the canonical form %s, which stays as it is", (text, canonical) => {
    expect(parsed(text).canonical).toBe(canonical);
    expect(parsed(canonical).canonical).toBe(canonical);
  });

  it.each([
    ["qemu:///system?command=/bin/sh", "'command'"],
    ["qemu+tls://n1/system?no_verify=1", "'no_verify'"],
    ["qemu+ssh://n1/system?keyfile=/root/.ssh/id", "'keyfile'"],
    ["qemu:///system?socket=/a&socket=/b", "twice"],
    ["qemu:///system?socket=relative", "absolute path"],
    ["qemu:///system?socket=/a%20b", "absolute path"],
    ["qemu:///system?socket=/a';id'", "absolute path"],
    ["qemu:///system?mode=fast", "'mode'"],
    ["qemu+ssh://root:secret@n1/system", "password"],
    ["qemu+tls://root@n1/system", "user name has no meaning"],
    ["qemu+tls://n1/system?socket=/a", "no meaning over tls"],
    ["qemu:///session", "session mode"],
    ["qemu+ssh://n1/session", "session mode"],
    ["qemu:///", "must be /system"],
    ["qemu+ssh:///system", "host is missing"],
    ["qemu://n1/system", "name the transport"],
    ["qemu+unix://n1/system", "three slashes"],
    ["qemu+ssh://-oProxyCommand=id/system", "host must be"],
    ["qemu+ssh://n1%2f/system", "host must be"],
    ["qemu+ssh://-l@n1/system", "user name may hold"],
    ["qemu+ssh://n1:0/system", "port 0"],
    ["qemu:///system#x", "'#'"],
    ["qemu+libssh2://n1/system", "is not one of"],
    ["test:///default", "is not one of"],
    ["test+unix:///other", "test+unix:///default"],
    ["qemu:system", "not a URI"],
    ["n1.example", "not a URI"],
    ["", "not a URI"],
  ])("%s is refused: %s", (text, why) => {
    expect(refusal(text)).toContain(why);
  });

  it("never throws, and what it accepts has a canonical form that means the same", () => {
    const words = fc.constantFrom(...LIBVIRT_SCHEMES, "xl", "http", "");
    const rest = fc.oneof(
      fc.string(),
      fc.webAuthority({ withIPv4: true, withIPv6: true, withPort: true, withUserInfo: true }),
    );
    const path = fc.constantFrom("/system", "/default", "/session", "");
    const query = fc.oneof(
      fc.constant(""),
      fc.webQueryParameters().map((text) => `?${text}`),
    );
    const uri = fc
      .tuple(words, rest, path, query)
      .map(([scheme, host, at, ask]) => `${scheme}://${host}${at}${ask}`);
    fc.assert(
      fc.property(fc.oneof(uri, fc.string()), (text) => {
        const first = parseLibvirtUri(text);
        if ("error" in first) return;
        expect(parsed(first.canonical)).toEqual(first);
      }),
    );
  });
});

describe("the driver", () => {
  it("tells the hypervisor and the canonical URI", () => {
    expect(libvirtDriver.parseUri("qemu+unix:///system")).toEqual({
      hypervisor: "kvm",
      uri: "qemu:///system",
    });
    expect(libvirtDriver.parseUri("qemu:///session")).toHaveProperty("error");
  });

  it("declares hardware guests of KVM and nothing else", () => {
    expect([...libvirtDriver.declares("kvm", "hvm")]).toContain("consoleLog");
    expect(libvirtDriver.declares("xen", "hvm").size).toBe(0);
    expect(libvirtDriver.declares("kvm", "pv").size).toBe(0);
  });
});

import { describe, expect, it } from "vitest";
import { parseIndexTargets, parseProxies } from "../../../../src/images/build/parse-apt-config.ts";

const targets = (...rows: readonly (readonly string[])[]) =>
  rows.map((row) => `${row.join("\t")}\t`).join("\n");

describe("this machine's mirrors", () => {
  it("are found among its sources, others left out", () => {
    const output = targets(
      ["https://packages.cloud.google.com/apt/", "cloud-sdk", "cloud-sdk-bookworm"],
      ["http://deb.debian.org/debian/", "Debian", "bookworm"],
      ["http://deb.debian.org/debian/", "Debian", "bookworm-updates"],
      ["http://deb.debian.org/debian-security/", "Debian", "bookworm-security"],
    );
    expect(parseIndexTargets(output)).toEqual({
      debian: "http://deb.debian.org/debian/",
      security: "http://deb.debian.org/debian-security/",
    });
  });

  it("are told by their paths where the lists were never fetched", () => {
    const output = targets(["http://a/debian-security/", "", ""], ["http://a/debian/", "", ""]);
    expect(parseIndexTargets(output)).toEqual({
      debian: "http://a/debian/",
      security: "http://a/debian-security/",
    });
  });

  it.each([
    ["Ubuntu's", targets(["http://archive.ubuntu.com/ubuntu/", "Ubuntu", "noble"])],
    ["files", targets(["file:/srv/debian/", "Debian", "bookworm"])],
    ["what is no URL", targets(["http://a/debian/ [trusted=yes]", "Debian", "bookworm"])],
    ["nothing", ""],
  ])("are not %s", (_what, output) => {
    expect(parseIndexTargets(output)).toEqual({ debian: null, security: null });
  });
});

it("hands apt's proxies on, but for words such as DIRECT", () => {
  const output = 'Acquire::http::Proxy "http://cache:3142/";\nAcquire::https::Proxy "DIRECT";\n';
  expect(parseProxies(output)).toEqual({ http_proxy: "http://cache:3142/" });
  expect(parseProxies("")).toEqual({});
});

import { describe, expect, it } from "vitest";
import { isHostDomain } from "../../../../src/hypervisors/xl/host-domain.ts";
import { domainPaths, HOST_ROOT, installationPaths } from "../../../../src/hypervisors/xl/host-file-paths.ts";
import { isVolumeName, volumePartPath, volumePath } from "../../../../src/hypervisors/xl/volume-names.ts";

const INSTALLATION = "0192aaaa-0000-7000-8000-000000000001";
const UUID = "0192aaaa-0000-7000-8000-00000000abcd";

describe("files on the host", () => {
  it("of an installation and its domains lie below one directory", () => {
    expect(HOST_ROOT).toBe("/var/lib/drover");
    expect(installationPaths(INSTALLATION).fence).toBe(`/var/lib/drover/${INSTALLATION}/fence`);
    const { directory, ...files } = domainPaths(INSTALLATION, UUID);
    expect(directory).toBe(`/var/lib/drover/${INSTALLATION}/domains/${UUID}`);
    expect(new Set(Object.values(files)).size).toBe(5);
    for (const file of Object.values(files)) expect(file.startsWith(`${directory}/`)).toBe(true);
  });

  it.each(["", "..", "../..", UUID.toUpperCase(), `${UUID}/x`, `${UUID}\n`])(
    "are never those of the id %j",
    (id) => {
      expect(() => installationPaths(id)).toThrow("no UUID");
      expect(() => domainPaths(INSTALLATION, id)).toThrow("no UUID");
    },
  );
});

describe("a volume's name", () => {
  it.each(["drover-0192-disk-root.qcow2", "vmlinuz-6.1+x", "_a", "contract-0a1b.img"])(
    "%s is one",
    (name) => {
      expect(isVolumeName(name)).toBe(true);
      expect(volumePath("/srv/p", name)).toBe(`/srv/p/${name}`);
      expect(isVolumeName(volumePartPath("/srv/p", name).slice("/srv/p/".length))).toBe(false);
    },
  );

  it.each(["", ".", "..", ".a", "-rf", "a/b", "a b", "a,b", "a:b", "a\n", "é", "a".repeat(201)])(
    "%j is none",
    (name) => {
      expect(isVolumeName(name)).toBe(false);
      expect(() => volumePath("/srv/p", name)).toThrow(
        expect.objectContaining({ reason: "invalid-spec", retryable: false }),
      );
    },
  );
});

describe("the host's own domain", () => {
  it.each([
    { uuid: "00000000-0000-0000-0000-000000000000" },
    { uuid: UUID, domid: 0 },
    { uuid: UUID, name: "Domain-0" },
    { uuid: UUID, name: "domain-0", domid: 7 },
    { uuid: UUID, name: "Xenstore" },
  ])("is %o", (domain) => {
    expect(isHostDomain(domain)).toBe(true);
  });

  it("is no other", () => {
    expect(isHostDomain({ uuid: UUID, domid: 1, name: "web-1-00000000abcd" })).toBe(false);
    expect(isHostDomain({ uuid: UUID, name: null })).toBe(false);
  });
});

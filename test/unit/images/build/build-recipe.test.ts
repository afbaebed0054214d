import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Mirror, PackageName, Suite } from "../../../../src/images/build/build-recipe.ts";
import { sourceLines } from "../../../../src/images/build/debian-sources.ts";
import { parseImportUrl } from "../../../../src/images/import-url.ts";

const anyText = fc.oneof(fc.string({ unit: "binary" }), fc.string());

describe("what a client may ask for", () => {
  it.each(["bookworm", "trixie", "sid", "stable", "bookworm-backports"])("takes the suite %s", (suite) => {
    expect(Suite.safeParse(suite).success).toBe(true);
  });

  it.each(["curl", "g++", "libstdc++6", "linux-image-6.1.0-9-amd64", "0ad"])(
    "takes the package %s",
    (name) => {
      expect(PackageName.safeParse(name).success).toBe(true);
    },
  );

  it.each([
    "",
    "a",
    "apt-",
    "-y",
    "Curl",
    "curl=1",
    "curl/sid",
    "curl vim",
    "./x.deb",
    "curl*",
    "~n",
    "?all",
  ])("refuses the package %s", (name) => {
    expect(PackageName.safeParse(name).success).toBe(false);
  });

  it.each([
    "https://deb.debian.org/debian/",
    "http://mirror.example:8080/debian",
    "http://[2001:db8::1]/debian",
  ])("takes the mirror %s", (mirror) => {
    expect(Mirror.safeParse(mirror).success).toBe(true);
  });

  it("lets no text become an option, another argument, or another line", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        for (const schema of [Suite, PackageName]) {
          const taken = schema.safeParse(text);
          if (taken.success) expect(taken.data).toMatch(/^[a-z0-9][a-z0-9+.-]*$/);
        }
      }),
    );
  });

  it("lets no mirror add an option or another line to a sources.list", () => {
    const url = fc.tuple(fc.constantFrom("http", "https"), fc.domain(), anyText);
    fc.assert(
      fc.property(url, ([scheme, host, rest]) => {
        const taken = Mirror.safeParse(`${scheme}://${host}/${rest}`);
        if (!taken.success) return;
        const parsed = parseImportUrl(taken.data);
        const href = parsed.ok ? parsed.url.href : "";
        const [line = "", ...more] = sourceLines({ suite: "sid", mirror: href }, NONE, "/k");
        expect(more).toEqual([]);
        expect(line.split(/\s/)).toEqual(["deb", "[signed-by=/k]", href, "sid", "main"]);
        expect(href).not.toMatch(/[[\]]/);
      }),
    );
  });
});

const NONE = { debian: null, security: null };

describe("the sources of an image", () => {
  const machine = { debian: "http://m/debian/", security: "http://m/debian-security/" };

  it("are this machine's mirrors, with updates and security updates", () => {
    expect(sourceLines({ suite: "bookworm", mirror: null }, machine, "/k")).toEqual([
      "deb [signed-by=/k] http://m/debian/ bookworm main",
      "deb [signed-by=/k] http://m/debian/ bookworm-updates main",
      "deb [signed-by=/k] http://m/debian-security/ bookworm-security main",
    ]);
  });

  it("are Debian's own where this machine has none, and sid has nothing beside it", () => {
    expect(sourceLines({ suite: "sid", mirror: null }, NONE, "/k")).toEqual([
      "deb [signed-by=/k] http://deb.debian.org/debian/ sid main",
    ]);
    expect(sourceLines({ suite: "trixie", mirror: null }, NONE, "/k").at(-1)).toBe(
      "deb [signed-by=/k] http://deb.debian.org/debian-security/ trixie-security main",
    );
  });
});

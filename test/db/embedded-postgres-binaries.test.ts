import { cpSync, lstatSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Account } from "../../src/db/embedded-postgres-account.ts";
import { embeddedBinaries, packageDirectory } from "../../src/db/embedded-postgres-binaries.ts";
import { parsePostmasterFile } from "../../src/db/embedded-postgres-process.ts";

const NOBODY: Account = { uid: 65_534, gid: 65_534, name: "nobody", foreign: true };
const OURSELVES: Account = {
  uid: process.getuid?.() ?? -1,
  gid: process.getgid?.() ?? -1,
  name: "us",
  foreign: false,
};

let directory: string;
let source: string;
function copyPackage(): void {
  directory = mkdtempSync(join(tmpdir(), "drover-binaries-"));
  source = join(directory, "package");
  cpSync(packageDirectory(), source, { recursive: true, verbatimSymlinks: true });
}

const linksIn = (path: string) =>
  readdirSync(join(path, "native/lib")).filter((name) =>
    lstatSync(join(path, "native/lib", name)).isSymbolicLink(),
  );

/** As npm leaves the package when it runs no install scripts. */
function dropLinks(): readonly string[] {
  const links = linksIn(source);
  for (const name of links) rmSync(join(source, "native/lib", name));
  return links;
}

describe("the binaries", () => {
  beforeEach(copyPackage);
  afterEach(() => {
    rmSync(directory, { recursive: true, force: true });
  });

  it("are used where they are, with the links that npm dropped put back", async () => {
    const links = dropLinks();
    expect(links.length).toBeGreaterThan(5);
    expect(await embeddedBinaries(directory, OURSELVES, source)).toBe(join(source, "native/bin"));
    expect(linksIn(source)).toEqual(links);
  });

  it("are copied once, readable and whole, where the account cannot reach them", async () => {
    const links = dropLinks();
    const found = await embeddedBinaries(directory, NOBODY, source);
    const staged = join(found, "../..");
    expect(staged).toMatch(/\/binaries-18\.[^/]+$/);
    expect(linksIn(staged)).toEqual(links);
    expect(statSync(join(found, "postgres")).mode & 0o555).toBe(0o555);
    expect(statSync(join(staged, "native/share/postgresql/postgres.bki")).mode & 0o444).toBe(0o444);
    const { ino } = statSync(staged);
    expect(await embeddedBinaries(directory, NOBODY, source)).toBe(found);
    expect(statSync(staged).ino).toBe(ino);
    expect(readdirSync(directory).sort()).toEqual([expect.stringMatching(/^binaries-/), "package"]);
  });
});

describe("postmaster.pid", () => {
  it("gives pid and socket directory, and nothing while it is half written", () => {
    const text = "123\n/data\n1700000000\n5432\n/run/socket\n\n  5432001    65538\nready   \n";
    expect(parsePostmasterFile(text)).toEqual({ pid: 123, socketDirectory: "/run/socket" });
    for (const part of ["", "123", "123\n/data\n", "x\n/data\n1\n5432\n/run\n", "-1\n/data\n1\n5432\n/run\n"])
      expect(parsePostmasterFile(part)).toBeNull();
  });
});

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import fc from "fast-check";
import { expect, it, vi } from "vitest";
import { type SeedFiles, seedImage } from "../../src/vms/cloud-init/seed.ts";
import { temporaryDirectory } from "../fixtures/temporary-directory.ts";

// The seed as others read it: isoinfo for the file system, blkid for what a guest looks for.

vi.setConfig({ testTimeout: 120_000 });

function written(directory: string, files: SeedFiles): string {
  const path = join(directory, "seed.iso");
  writeFileSync(path, seedImage(files));
  return path;
}

async function isoinfo(path: string, ...args: readonly string[]): Promise<Buffer> {
  const { stdout } = await execa("isoinfo", ["-i", path, ...args], {
    encoding: "buffer",
    stripFinalNewline: false,
  });
  return Buffer.from(stdout);
}

const text = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.nat(20_000).map((size) => "ü\n".repeat(size)),
);

it("has each file with its content under its own name, by Joliet", async () => {
  const directory = await temporaryDirectory();
  const files = fc.record({
    userData: text,
    metaData: text,
    vendorData: fc.option(text),
    networkConfig: fc.option(text),
  });
  await fc.assert(
    fc.asyncProperty(files, async (seed) => {
      const path = written(directory, seed);
      const wanted = [
        ["/meta-data", seed.metaData],
        ["/network-config", seed.networkConfig],
        ["/user-data", seed.userData],
        ["/vendor-data", seed.vendorData],
      ].filter(([, content]) => content !== null);
      const listed = (await isoinfo(path, "-J", "-f")).toString().trimEnd().split("\n");
      expect(listed).toEqual(wanted.map(([name]) => name));
      for (const [name, content] of wanted)
        expect((await isoinfo(path, "-J", "-x", name ?? "")).toString()).toBe(content);
    }),
    { numRuns: 20 },
  );
});

it("has names of the standard alone for who does not know Joliet, and the label that cloud-init looks for", async () => {
  const directory = await temporaryDirectory();
  const path = written(directory, { userData: "u", metaData: "m", vendorData: "v", networkConfig: "n" });
  const listed = (await isoinfo(path, "-f")).toString().trimEnd().split("\n");
  expect(listed).toEqual(["/META_DATA.;1", "/NETWORK_CONFIG.;1", "/USER_DATA.;1", "/VENDOR_DATA.;1"]);
  expect((await isoinfo(path, "-x", "/NETWORK_CONFIG.;1")).toString()).toBe("n");
  const { stdout } = await execa("blkid", ["-p", "-o", "export", path]);
  expect(stdout.split("\n")).toEqual(expect.arrayContaining(["LABEL=cidata", "TYPE=iso9660"]));
});

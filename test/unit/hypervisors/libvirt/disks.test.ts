import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { diskXml } from "../../../../src/hypervisors/libvirt/domain-xml.ts";
import { parseDisks } from "../../../../src/hypervisors/libvirt/parse-disks.ts";

const FIXTURES = join(import.meta.dirname, "../../../fixtures/libvirt");
const read = (name: string): string => readFileSync(join(FIXTURES, name), "utf8");

describe("the disks in a domain's XML", () => {
  test.each(["domain-ours-9.0.0.xml", "domain-ours-running-9.0.0.xml"])("are all found in %s", (name) => {
    const xml = read(name);
    const disks = parseDisks(xml);
    expect(disks.map(({ target }) => target)).toEqual(
      [...xml.matchAll(/<target dev='([a-z]+)' bus/g)].map((m) => m[1]),
    );
    expect(disks.length).toBeGreaterThan(0);
    for (const { path } of disks) expect(xml).toContain(`='${path ?? "no path"}'`);
  });

  test("have no path where they have no source, such as an empty CD-ROM", () => {
    const xml = "<domain><devices><disk device='cdrom'><target dev='sda'/></disk><disk/></devices></domain>";
    expect(parseDisks(xml)).toEqual([{ target: "sda", path: null }]);
    expect(parseDisks("<domain/>")).toEqual([]);
  });

  test("are found again as they were written", () => {
    const disk = { name: "data", kind: "disk", volume: { pool: "p", name: "v" }, format: "qcow2" } as const;
    for (const source of [
      { type: "file", path: "/pool/a & b.qcow2" },
      { type: "block", path: "/dev/vg/v" },
    ] as const) {
      const xml = `<domain><devices>${diskXml(disk, source, "vdc")}</devices></domain>`;
      expect(parseDisks(xml)).toEqual([{ target: "vdc", path: source.path }]);
      expect(xml).toContain("<serial>data</serial>");
    }
  });

  test("of any text are disks or an error of the host's", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parseDisks(text);
        } catch (error) {
          expect(error).toBeInstanceOf(HypervisorError);
        }
      }),
    );
  });
});

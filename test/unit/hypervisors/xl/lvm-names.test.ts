import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isGroupName,
  logicalVolumeName,
  logicalVolumePath,
} from "../../../../src/hypervisors/xl/lvm-names.ts";
import { parseLogicalVolumes } from "../../../../src/hypervisors/xl/parse-logical-volumes.ts";
import { isVolumeName } from "../../../../src/hypervisors/xl/volume-names.ts";

const VM_DISK = "drover-0192aaaa-0000-7000-8000-00000000abcd-disk-root.raw";

describe("a logical volume's name", () => {
  it("is the volume's own where LVM takes it", () => {
    expect(logicalVolumeName("vg0", VM_DISK)).toBe(VM_DISK);
    expect(logicalVolumePath("vg0", VM_DISK)).toBe(`/dev/vg0/${VM_DISK}`);
  });

  it.each(["snapshot1", "pvmove0", "a_rimage", "x_cdata_1", "a".repeat(120), "a-".repeat(60)])(
    "is another one for %s",
    (name) => {
      expect(logicalVolumeName("vg0", name)).toMatch(/^drover\.[0-9a-f]{32}$/);
    },
  );

  it("is always one that the device mapper takes, and another one for another volume", () => {
    const letter = fc.constantFrom(...Array.from("aZ09._+-"));
    const name = fc.string({ unit: letter, minLength: 1, maxLength: 200 }).filter(isVolumeName);
    const group = fc.string({ unit: letter, minLength: 1, maxLength: 40 }).filter(isGroupName);
    fc.assert(
      fc.property(group, name, name, (vg, one, other) => {
        const made = logicalVolumeName(vg, one);
        expect(made).toMatch(/^[A-Za-z0-9.][A-Za-z0-9.+_-]*$/);
        if (made === one) expect(`${vg}-${made}`.replaceAll("-", "--").length).toBeLessThan(126);
        expect(logicalVolumeName(vg, other) === made).toBe(one === other);
      }),
    );
  });

  it.each(["../x", "-a", "a b", ""])("is none for %j", (name) => {
    expect(() => logicalVolumeName("vg0", name)).toThrow("cannot name a volume");
  });

  it.each(["../etc", "-vg", ".", "..", "a/b", "a b", ""])("is none in a group called %j", (group) => {
    expect(isGroupName(group)).toBe(false);
    expect(() => logicalVolumePath(group, "a")).toThrow("cannot name a volume group");
  });
});

describe("what lvs reports", () => {
  it("are the volumes that are ours and whole, by their own names", () => {
    const report = `
  root 8388608${" "}
  theirs 4194304 backup,daily
  a.raw 1048576 drover=a.raw
  drover.0123 2097152 other,drover=long_name.raw
  half.raw 2097152 drover-part=half.raw
  grow.raw 3145728 drover-grow=1048576,drover=grow.raw
`;
    expect(parseLogicalVolumes(report)).toEqual([
      { name: "a.raw", capacityBytes: 1048576, allocationBytes: 1048576 },
      { name: "long_name.raw", capacityBytes: 2097152, allocationBytes: 2097152 },
      { name: "grow.raw", capacityBytes: 1048576, allocationBytes: 3145728 },
    ]);
    expect(parseLogicalVolumes("")).toEqual([]);
  });

  it("are no volumes with a name that none can have", () => {
    expect(parseLogicalVolumes("  a 1048576 drover=../a\n")).toEqual([]);
  });

  it.each(["a", "  WARNING: VG vg0 was previously updated", "  a -1 drover=a"])("is never %j", (line) => {
    expect(() => parseLogicalVolumes(line)).toThrow("cannot be read");
  });
});

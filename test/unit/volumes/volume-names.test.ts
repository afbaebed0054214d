import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { asId, type InstallationId, newId } from "../../../src/lib/ids.ts";
import {
  installationPrefix,
  ownerInName,
  volumeName,
  volumePrefix,
} from "../../../src/volumes/volume-names.ts";

const ours = newId<InstallationId>();
const others = newId<InstallationId>();
const owner = newId();

describe("the name of a volume", () => {
  test("says whose it is and what it was made for", () => {
    for (const [what, suffix] of [
      ["disk-root", "qcow2"],
      ["disk-a1-b", "raw"],
      ["kernel", "boot"],
      ["seed", "iso"],
      ["volume", "qcow2"],
    ] as const) {
      const name = volumeName(ours, owner, what, suffix);
      expect(name.startsWith(volumePrefix(ours, owner))).toBe(true);
      expect(name.startsWith(installationPrefix(ours))).toBe(true);
      expect(ownerInName(ours, name)).toBe(owner);
      expect(ownerInName(others, name)).toBeNull();
    }
  });

  test("is none of ours where anything else stands in it", () => {
    const name = volumeName(ours, owner, "disk-root", "qcow2");
    for (const wrong of [
      `${name}.bak`,
      name.replace("drover-", "other-"),
      name.replace(".qcow2", ""),
      volumeName(ours, "not-an-id", "disk-root", "qcow2"),
      volumeName(ours, owner, "image", "qcow2"),
      volumeName(ours, owner, "disk-", "qcow2"),
      `drover-${owner}-disk-root.qcow2`,
      "",
    ])
      expect(ownerInName(ours, wrong), wrong).toBeNull();
  });

  test("of whatever text is an id or nothing", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const found = ownerInName(ours, `${installationPrefix(ours)}${text}`);
        if (found !== null) asId(found);
      }),
    );
  });
});

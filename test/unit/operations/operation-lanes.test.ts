import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { Subject } from "../../../src/operations/operation-kind.ts";
import { distinctSubjects, laneKey, laneLocks } from "../../../src/operations/operation-lanes.ts";

const subject: fc.Arbitrary<Subject> = fc.record({
  kind: fc.constantFrom("vm", "image", "host"),
  id: fc.constantFrom("a", "b", "c", "d"),
  mode: fc.constantFrom("shared", "exclusive"),
});

test("everybody locks in one order, each lane once, and exclusive wins", () => {
  fc.assert(
    fc.property(fc.array(subject, { maxLength: 12 }), (subjects) => {
      const locks = laneLocks(subjects);
      const keys = locks.map(({ key }) => key);
      expect(keys).toEqual(keys.toSorted((a, b) => (a < b ? -1 : 1)));
      expect(new Set(keys).size).toBe(keys.length);
      for (const { key, mode } of locks) {
        const same = subjects.filter((one) => laneKey(one) === key);
        expect(mode).toBe(same.some((one) => one.mode === "exclusive") ? "exclusive" : "shared");
      }
      expect(laneLocks(subjects.toReversed())).toEqual(locks);
      expect(laneLocks(distinctSubjects(subjects))).toEqual(locks);
    }),
  );
});

test("keys never change between releases, and stay clear of other locks", () => {
  expect(laneKey({ kind: "vm", id: "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77" })).toBe(6913550769963530413n);
  fc.assert(
    fc.property(fc.uuid(), (id) => {
      const key = laneKey({ kind: "vm", id });
      expect(key >= 2n ** 62n && key < 2n ** 63n).toBe(true);
    }),
  );
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type LabelRequirement,
  LabelSelector,
  Labels,
  LabelsPatch,
  MAX_LABELS,
  parseLabelSelector,
  patchLabels,
} from "../../../src/http/labels.ts";

const LETTERS = Array.from("ABCXYZabcxyz0189");
const anyKey = fc
  .tuple(
    fc.constantFrom(...LETTERS),
    fc.string({ unit: fc.constantFrom(...LETTERS, ".", "_", "/", "-"), maxLength: 20 }),
  )
  .map(([first, rest]) => `${first}${rest}x`);
const anyValue = fc.oneof(
  fc.constant(""),
  fc
    .string({ unit: fc.constantFrom(...LETTERS, ".", "_", "-"), maxLength: 20 })
    .map((middle) => `a${middle}9`),
);
const anyRequirement: fc.Arbitrary<LabelRequirement> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("in" as const, "notIn" as const),
    key: anyKey,
    values: fc.array(anyValue, { minLength: 1, maxLength: 4 }),
  }),
  fc.record({ kind: fc.constantFrom("exists" as const, "absent" as const), key: anyKey }),
);

function write(requirement: LabelRequirement): string {
  switch (requirement.kind) {
    case "exists":
      return requirement.key;
    case "absent":
      return `!${requirement.key}`;
    case "in":
    case "notIn": {
      const { kind, key, values } = requirement;
      const [only] = values;
      if (values.length === 1 && only !== undefined) return `${key}${kind === "in" ? "=" : "!="}${only}`;
      return `${key} ${kind === "in" ? "in" : "notin"} (${values.join(", ")})`;
    }
  }
}

describe("a selector", () => {
  test("reads what it was written from", () => {
    fc.assert(
      fc.property(fc.array(anyRequirement, { minLength: 1, maxLength: 8 }), (requirements) => {
        expect(parseLabelSelector(requirements.map(write).join(","))).toEqual(requirements);
      }),
    );
  });

  test("of the documentation is read", () => {
    expect(parseLabelSelector("role=web,tier!=db,env in (a,b), zone notin (c) ,!legacy,owner,x==y")).toEqual([
      { kind: "in", key: "role", values: ["web"] },
      { kind: "notIn", key: "tier", values: ["db"] },
      { kind: "in", key: "env", values: ["a", "b"] },
      { kind: "notIn", key: "zone", values: ["c"] },
      { kind: "absent", key: "legacy" },
      { kind: "exists", key: "owner" },
      { kind: "in", key: "x", values: ["y"] },
    ]);
  });

  test.each([
    "",
    ",",
    "a=b,",
    "=",
    "a=b=c",
    "a in",
    "a in ()(",
    "a in (b",
    "a b",
    "!!a",
    "a='b'",
    "a=b;drop",
    "ä=b",
  ])("%j is refused", (text) => {
    expect(LabelSelector.safeParse(text).success).toBe(false);
  });

  test("of any text is read or refused, never more", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        LabelSelector.safeParse(text);
      }),
    );
  });

  test("of too many conditions is refused", () => {
    const text = Array.from({ length: 33 }, (_, index) => `k${index}`).join(",");
    expect(parseLabelSelector(text)).toBeNull();
  });
});

describe("labels", () => {
  test.each([{ role: "web" }, { "example.com/role": "" }, {}, { a: "x".repeat(63) }])(
    "%j are taken",
    (labels) => {
      expect(Labels.parse(labels)).toEqual(labels);
    },
  );

  test.each([
    { "": "x" },
    { "-a": "x" },
    { a: " x" },
    { a: "x\u0000" },
    { a: "x".repeat(64) },
    { ["k".repeat(64)]: "x" },
    { a: 1 },
    Object.fromEntries(Array.from({ length: MAX_LABELS + 1 }, (_, index) => [`k${index}`, "v"])),
  ])("%j are refused", (labels) => {
    expect(Labels.safeParse(labels).success).toBe(false);
  });

  test("are patched: set, changed, removed, left alone", () => {
    const patch = LabelsPatch.parse({ a: null, b: "2", d: "4", e: null });
    expect(patchLabels({ a: "1", b: "1", c: "3" }, patch)).toEqual({ b: "2", c: "3", d: "4" });
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readDefinition, writeDefinition } from "../../../../src/hypervisors/xl/domain-definition.ts";
import { expectFactsOrRefusal } from "./mangled.ts";
import { definition, PARTS, spec } from "./specs.ts";

const whole = { spec: spec(), parts: PARTS };

describe("a definition's file", () => {
  it("is read back as it was written", () => {
    expect(readDefinition(writeDefinition(whole))).toEqual(whole);
    fc.assert(
      fc.property(definition, (each) => {
        expect(readDefinition(writeDefinition(each))).toEqual(each);
      }),
    );
  });

  it("of another version is refused, and so is one that says more or less than this one knows", () => {
    const file = JSON.parse(writeDefinition(whole)) as Record<string, unknown>;
    const refused = (change: Record<string, unknown>) => () =>
      readDefinition(JSON.stringify({ ...file, ...change }));
    expect(refused({ version: 2 })).toThrow("'domain.json'");
    expect(refused({ later: true })).toThrow("later");
    expect(refused({ spec: { ...spec(), uuid: "../../etc" } })).toThrow("UUID");
    expect(refused({ spec: { ...spec(), memoryMib: 0 } })).toThrow("memoryMib");
    expect(refused({ parts: undefined })).toThrow("parts");
    expect(() => readDefinition("")).toThrow("no JSON");
  });

  it("mangled gives a definition or a refusal", () => {
    expectFactsOrRefusal(readDefinition, [writeDefinition(whole)], (found) => {
      expect(found.spec.uuid).toMatch(/^[0-9a-f-]{36}$/);
    });
  });
});

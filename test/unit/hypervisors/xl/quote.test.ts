import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { shellLine } from "../../../../src/hypervisors/xl/quote.ts";

/** What a shell makes of a line: the arguments that it hands on. */
function argumentsOf(line: string): readonly string[] {
  const said = execFileSync("sh", ["-c", line], { encoding: "utf8" });
  return said.split("\0").slice(0, -1);
}

/** Characters that mean something to a shell, and others. */
const character = fc.oneof(
  fc.constantFrom(...Array.from("'\"\\$`!*?[]{}()<>|&;#~=%^ \t\n\r-/")),
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }).filter((text) => text !== "\0"),
);
const argument = fc.array(character, { maxLength: 12 }).map((characters) => characters.join(""));

describe("a line for a shell", () => {
  it("gives back every argument as it was", () => {
    fc.assert(
      fc.property(fc.array(argument, { minLength: 1, maxLength: 6 }), (args) => {
        expect(argumentsOf(shellLine(["printf", "%s\\0", ...args]))).toEqual(args);
      }),
      { numRuns: 200 },
    );
  });

  it("runs nothing that stands in an argument", () => {
    const args = ["$(id)", "`id`", "'; id; '", "a\nid", "--", "", "'", "''", "\\'"];
    expect(argumentsOf(shellLine(["printf", "%s\\0", ...args]))).toEqual(args);
  });

  it("cannot hold a NUL", () => {
    expect(() => shellLine(["printf", "a\0b"])).toThrow("cannot hold a NUL");
  });
});

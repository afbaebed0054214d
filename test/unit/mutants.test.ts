import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { applyEdit } from "../mutants/mutant.ts";
import { MUTANTS } from "../mutants/mutants.ts";

const read = (file: string): Promise<string> => readFile(new URL(`../../${file}`, import.meta.url), "utf8");

describe("a mutant of npm run test:mutants", () => {
  it.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))("applies: %s", async (_name, mutant) => {
    for (const edit of mutant.edits) {
      const text = await read(edit.file);
      expect(applyEdit(text, edit)).not.toBe(text);
    }
    expect(await read(mutant.test.file)).toContain(mutant.test.title);
  });

  it("has a name of its own", () => {
    expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
  });
});

import { readFileSync } from "node:fs";

/** What a real xl wrote; the file's name ends in that Xen's version. */
export function fixture(name: string): string {
  return readFileSync(new URL(`../../../fixtures/xl/${name}-4.17.txt`, import.meta.url), "utf8");
}

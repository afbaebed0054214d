import { readFileSync } from "node:fs";

/** A document that a real libvirt gave; the file's name ends in that libvirt's version. */
export function fixture(name: string): string {
  return readFileSync(new URL(`../../../fixtures/libvirt/${name}.xml`, import.meta.url), "utf8");
}

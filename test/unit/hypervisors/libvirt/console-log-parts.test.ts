import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { consoleLogPartNames, tailRanges } from "../../../../src/hypervisors/libvirt/console-log-parts.ts";

describe("the parts of a console log", () => {
  it("are the file and what virtlogd turned over, the newest first", () => {
    expect(consoleLogPartNames("u").slice(0, 3)).toEqual([
      "console-u.log",
      "console-u.log.0",
      "console-u.log.1",
    ]);
  });

  it("give the last bytes of the whole, in order", () => {
    const contents = fc.array(fc.string({ maxLength: 20 }), { maxLength: 5 });
    fc.assert(
      fc.property(contents, fc.nat(120), (newestFirst, maxBytes) => {
        const parts = newestFirst.map((source) => ({ source, sizeBytes: source.length }));
        const read = tailRanges(parts, maxBytes).map(({ source, offset, length }) =>
          source.slice(offset, offset + length),
        );
        const whole = [...newestFirst].reverse().join("");
        expect(read.join("")).toBe(whole.slice(Math.max(0, whole.length - maxBytes)));
        expect(read).not.toContain("");
      }),
    );
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { endOf, shortened } from "../../../src/consoles/console-close.ts";
import { consolePage } from "../../../src/consoles/console-page.ts";
import { maskTickets } from "../../../src/http/masked-url.ts";
import { DroverError } from "../../../src/lib/errors.ts";

const SECRET = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

describe("a URL in the log", () => {
  it.each([
    [`/v1/consoles/console_${SECRET}`, "/v1/consoles/console_***"],
    [`/console/console_${SECRET}/?x=1`, "/console/console_***/?x=1"],
    [`/console/console%5F${SECRET}`, "/console/console_***"],
    [`/somewhere?url=/console/console_${SECRET}&b=1`, "/somewhere?url=/console/console_***&b=1"],
    ["/v1/vms/web-1/console/log", "/v1/vms/web-1/console/log"],
  ])("%s is written as %s", (url, masked) => {
    expect(maskTickets(url)).toBe(masked);
  });
});

describe("the reason of a close", () => {
  it("fits its frame, in whole characters, and says the status in the code", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (text) => {
        const reason = shortened(text);
        expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
        expect(reason).not.toContain("\ufffd");
        expect(text.startsWith(reason.replace(/…$/, ""))).toBe(true);
      }),
    );
    expect(endOf(new DroverError("host_unreachable", "gone"))).toEqual({ code: 4503, reason: "gone" });
    expect(endOf(new DroverError("conflict", "taken")).code).toBe(4409);
  });
});

it("a name cannot break out of the page", () => {
  const html = consolePage('</title><script>alert("x")</script>', "vnc", "bm9uY2U=");
  expect(html).not.toContain("<script>alert");
  expect(html).toContain("&lt;script&gt;");
});

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countPackages, explainFailure } from "../../../../src/images/build/parse-build-output.ts";

const recorded = readFileSync(
  new URL("../../../fixtures/mmdebstrap/bookworm-1.3.5.txt", import.meta.url),
  "utf8",
).split("\n");

describe("the progress of a build", () => {
  it("counts the packages of a recorded build to its end", () => {
    let count = { done: 0, total: 0 };
    let highest = 0;
    for (const line of recorded) {
      count = countPackages(line, count);
      expect(count.done).toBeGreaterThanOrEqual(highest);
      highest = count.done;
    }
    expect(count).toEqual({ done: 162, total: 162 });
  });

  it("never passes its end, whatever is printed", () => {
    const line = fc.oneof(fc.constant("Setting up x (1) ..."), fc.constantFrom(...recorded), fc.string());
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        let count = { done: 0, total: 0 };
        for (const one of lines) count = countPackages(one, count);
        expect(count.done).toBeLessThanOrEqual(count.total);
      }),
    );
  });
});

describe("why a build failed", () => {
  it.each([
    ["E: Unable to locate package no-such", "image_build_failed", "no package no-such", "never"],
    ["E: Package 'java' has no installation candidate", "image_build_failed", "no package java", "never"],
    [
      "E: The repository 'http://x lenny Release' does not have a Release file.",
      "image_build_failed",
      "suite",
      "never",
    ],
    ["Err:1 http://x bookworm InRelease  404  Not Found [IP: ::1]", "image_build_failed", "suite", "never"],
    [
      "  The following signatures couldn't be verified: NO_PUBKEY 0E98",
      "image_build_failed",
      "signed",
      "never",
    ],
    ["  Temporary failure resolving 'deb.debian.org'", "download_failed", "reached", "temporary"],
    [
      "  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111)",
      "download_failed",
      "reached",
      "temporary",
    ],
    ["dpkg: error: failed to write: No space left on device", "storage_full", "disk", "afterCapacity"],
    ["E: run_chroot failed", "image_build_failed", "E: run_chroot failed", "never"],
  ])("is found in: %s", (line, code, message, retry) => {
    const error = explainFailure("mmdebstrap", ["I: running", line, "I: cleaning up"]);
    expect(error).toMatchObject({ code, retry });
    expect(error.message).toContain(message);
  });

  it("is always an error with a message, whatever was printed", () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (lines) => {
        expect(explainFailure("mke2fs", lines).message).not.toBe("");
      }),
    );
  });
});

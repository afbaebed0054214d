import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Absences } from "../../../src/hosts/absences.ts";

describe("an absence", () => {
  it("is proof only when it lasts, and begins anew when the domain was seen", () => {
    const absences = new Absences(100);
    expect(absences.dueAt).toBe(Infinity);
    absences.missed(["a"], 1000);
    absences.missed(["a", "b"], 1050);
    expect([absences.provenAt(1099), absences.provenAt(1100)]).toEqual([[], ["a"]]);
    expect(absences.dueAt).toBe(1100);
    absences.seen(["a"]);
    absences.missed(["a"], 1100);
    expect([absences.provenAt(1150), absences.dueAt]).toEqual([["b"], 1150]);
  });

  it("is over for all that a complete inventory does not miss", () => {
    const absences = new Absences(100);
    absences.missed(["a", "b"], 0);
    absences.missedAll(["b", "c"], 60);
    expect(absences.provenAt(120)).toEqual(["b"]);
    absences.missedAll([], 130);
    expect([absences.provenAt(1e9), absences.dueAt]).toEqual([[], Infinity]);
  });

  it("proves nothing that was seen within the time, whatever was looked at", () => {
    const looks = fc.array(fc.record({ there: fc.boolean(), complete: fc.boolean(), after: fc.nat(80) }));
    fc.assert(
      fc.property(looks, (sequence) => {
        const absences = new Absences(100);
        let time = 0;
        let missedSince: number | null = null;
        for (const { there, complete, after } of sequence) {
          time += after;
          const isProven = absences.provenAt(time).includes("a");
          expect(isProven).toBe(missedSince !== null && time - missedSince >= 100);
          if (complete) absences.missedAll(there ? [] : ["a"], time);
          else if (there) absences.seen(["a"]);
          else absences.missed(["a"], time);
          missedSince = there ? null : (missedSince ?? time);
        }
      }),
    );
  });
});

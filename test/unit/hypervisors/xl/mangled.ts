import fc from "fast-check";
import { expect } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";

/** Text with pieces cut out and put in, or any text at all. */
function mangled(texts: readonly string[]): fc.Arbitrary<string> {
  const put = fc.oneof(
    fc.string({ maxLength: 5 }),
    fc.constantFrom("-1", "1e9", "99999999999999999999", "\n", "\0", '"', "(null)", ":", "  ", "{}", "null"),
  );
  const edit = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), cut: fc.nat(60), put });
  const edited = fc
    .tuple(fc.constantFrom(...texts), fc.array(edit, { minLength: 1, maxLength: 4 }))
    .map(([text, edits]) =>
      edits.reduce((before, { at, cut, put: piece }) => {
        const from = Math.floor(at * before.length);
        return before.slice(0, from) + piece + before.slice(from + cut);
      }, text),
    );
  return fc.oneof({ weight: 4, arbitrary: edited }, fc.string());
}

/** Expects facts that `holds` finds sound, or a HypervisorError that no repetition mends, and nothing else. */
export function expectFactsOrRefusal<Facts>(
  parse: (text: string) => Facts,
  texts: readonly string[],
  holds: (facts: Facts) => void,
): void {
  fc.assert(
    fc.property(mangled(texts), (text) => {
      let facts: Facts;
      try {
        facts = parse(text);
      } catch (error) {
        expect(error).toBeInstanceOf(HypervisorError);
        expect(error).toMatchObject({ reason: "failed", retryable: false });
        return;
      }
      holds(facts);
    }),
    { numRuns: 500 },
  );
}

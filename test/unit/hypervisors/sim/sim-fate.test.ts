import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FateSettings, fateOf } from "../../../../src/hypervisors/sim/sim-fate.ts";

const calm: FateSettings = { name: "n1", seed: 7, latencyMs: 0, failRate: 0, hangRate: 0, loseAnswerRate: 0 };
const rough: FateSettings = { ...calm, latencyMs: 40, failRate: 0.2, hangRate: 0.1, loseAnswerRate: 0.3 };
const calls = Array.from({ length: 2000 }, (_, n) => n);

function fates(settings: FateSettings, kind = "startDomain") {
  return calls.map((n) => fateOf(settings, kind, n));
}

function shareOf(outcome: string, settings: FateSettings): number {
  return fates(settings).filter((fate) => fate.outcome === outcome).length / calls.length;
}

describe("the fate of a call", () => {
  it("is the same for the same seed, kind and number", () => {
    expect(fates(rough)).toEqual(fates({ ...rough }));
    expect(fates(rough)).toEqual(fates({ ...rough, name: "another host of this seed" }));
  });

  it("is another for another seed, kind or, without a seed, name", () => {
    expect(fates({ ...rough, seed: 8 })).not.toEqual(fates(rough));
    expect(fates(rough, "defineDomain")).not.toEqual(fates(rough));
    const unseeded = { ...rough, seed: null };
    expect(fates({ ...unseeded, name: "n2" })).not.toEqual(fates(unseeded));
    expect(fates(unseeded)).toEqual(fates({ ...unseeded }));
  });

  it("comes as often as its rate says", () => {
    expect(shareOf("fail", rough)).toBeCloseTo(0.2, 1);
    expect(shareOf("hang", rough)).toBeCloseTo(0.1, 1);
    expect(shareOf("lose-answer", rough)).toBeCloseTo(0.3, 1);
    expect(shareOf("answer", calm)).toBe(1);
    expect(shareOf("fail", { ...calm, failRate: 1 })).toBe(1);
  });

  it("takes from half of the latency to one and a half times as long", () => {
    const latencies = fates(rough).map(({ latencyMs }) => latencyMs);
    expect(Math.min(...latencies)).toBeGreaterThanOrEqual(20);
    expect(Math.max(...latencies)).toBeLessThanOrEqual(60);
    expect(new Set(latencies).size).toBeGreaterThan(20);
    expect(fateOf(calm, "probe", 0).latencyMs).toBe(0);
  });

  it("does not depend on the latency, so that a test can be slowed down", () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(10_000), (n, latencyMs) => {
        expect(fateOf({ ...rough, latencyMs }, "probe", n).outcome).toBe(fateOf(rough, "probe", n).outcome);
      }),
    );
  });
});

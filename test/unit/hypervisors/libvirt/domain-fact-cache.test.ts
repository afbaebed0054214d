import { describe, expect, it } from "vitest";
import { DomainFactCache } from "../../../../src/hypervisors/libvirt/domain-fact-cache.ts";
import type { DomainFacts } from "../../../../src/hypervisors/libvirt/parse-domain.ts";

function facts(cpuCount: number): DomainFacts {
  return { installationId: null, vmId: null, cpuCount, memoryMib: 1 };
}

function cacheAt(): { cache: DomainFactCache; pass: (ms: number) => void } {
  let now = 0;
  const cache = new DomainFactCache({ now: () => new Date(0), monotonicMs: () => now });
  return {
    cache,
    pass: (ms) => {
      now += ms;
    },
  };
}

describe("remembered facts of domains", () => {
  it("are kept until an event drops them", async () => {
    const { cache } = cacheAt();
    await cache.refresh("a", () => Promise.resolve(facts(1)));
    expect(cache.get("a")).toEqual(facts(1));
    cache.drop("a");
    expect(cache.get("a")).toBeNull();
  });

  it("are not kept when their event came while they were read", async () => {
    const { cache } = cacheAt();
    const read = Promise.withResolvers<DomainFacts>();
    const refreshed = cache.refresh("a", () => read.promise);
    cache.drop("a");
    read.resolve(facts(1));
    expect(await refreshed).toEqual(facts(1));
    expect(cache.get("a")).toBeNull();
  });

  it("are those of the reading that began last", async () => {
    const { cache } = cacheAt();
    const first = Promise.withResolvers<DomainFacts>();
    const slow = cache.refresh("a", () => first.promise);
    await cache.refresh("a", () => Promise.resolve(facts(2)));
    first.resolve(facts(1));
    await slow;
    expect(cache.get("a")).toEqual(facts(2));
  });

  it("grow old", async () => {
    const { cache, pass } = cacheAt();
    await cache.refresh("a", () => Promise.resolve(facts(1)));
    pass(59_000);
    expect(cache.get("a")).not.toBeNull();
    pass(2_000);
    expect(cache.get("a")).toBeNull();
  });

  it("are forgotten with their domain, and a failed reading leaves nothing", async () => {
    const { cache } = cacheAt();
    await cache.refresh("a", () => Promise.resolve(facts(1)));
    await cache.refresh("b", () => Promise.resolve(facts(1)));
    cache.retain(new Set(["b"]));
    expect(cache.get("a")).toBeNull();
    expect(cache.get("b")).not.toBeNull();
    await expect(cache.refresh("a", () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
    expect(cache.get("a")).toBeNull();
  });
});

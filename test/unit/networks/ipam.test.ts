import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatIpv4, parseIpv4 } from "../../../src/lib/ip-address.ts";
import { firstFree, hostAddresses, poolOf } from "../../../src/networks/ipam.ts";

const range = fc
  .tuple(fc.bigInt({ min: 0n, max: 1000n }), fc.bigInt({ min: 0n, max: 40n }))
  .map(([first, more]) => ({ first, last: first + more }));

describe("the first free address", () => {
  test("is in the range, is not taken, and none before it is free", () => {
    const taken = fc.array(fc.bigInt({ min: 0n, max: 1050n }), { maxLength: 60 });
    fc.assert(
      fc.property(range, taken, (pool, used) => {
        const address = firstFree(pool, used);
        const all = Array.from(
          { length: Number(pool.last - pool.first) + 1 },
          (_, n) => pool.first + BigInt(n),
        );
        const free = all.filter((one) => !used.includes(one));
        expect(address).toBe(free[0] ?? null);
      }),
    );
  });

  test("taken again and again gives each address once, and then none", () => {
    fc.assert(
      fc.property(range, (pool) => {
        const used: bigint[] = [];
        for (let address = firstFree(pool, used); address !== null; address = firstFree(pool, used))
          used.push(address);
        expect(new Set(used).size).toBe(used.length);
        expect(used.length).toBe(Number(pool.last - pool.first) + 1);
      }),
    );
  });
});

describe("a network's pool", () => {
  test("never holds the subnet's own address, its broadcast and the gateway", () => {
    const network = {
      cidr: "10.20.0.0/29",
      gateway: "10.20.0.3",
      range: { start: "10.20.0.1", end: "10.20.0.6" },
    };
    const { range: pool, reserved, hosts } = poolOf(network);
    expect([hosts.first, hosts.last].map(formatIpv4)).toEqual(["10.20.0.1", "10.20.0.6"]);
    const used = [...reserved];
    const given: string[] = [];
    for (let address = firstFree(pool, used); address !== null; address = firstFree(pool, used)) {
      used.push(address);
      given.push(formatIpv4(address));
    }
    expect(given).toEqual(["10.20.0.1", "10.20.0.2", "10.20.0.4", "10.20.0.5", "10.20.0.6"]);
  });

  test("of the smallest subnet has two", () => {
    const first = parseIpv4("10.0.0.0") ?? 0n;
    expect(hostAddresses({ family: "ipv4", first, prefix: 30 })).toEqual({
      first: first + 1n,
      last: first + 2n,
    });
  });
});

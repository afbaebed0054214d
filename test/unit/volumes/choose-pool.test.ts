import { describe, expect, test } from "vitest";
import { type HostId, newId } from "../../../src/lib/ids.ts";
import { choosePool } from "../../../src/volumes/choose-pool.ts";
import type { PoolCandidate } from "../../../src/volumes/volume-store.ts";

const GIB = 2 ** 30;

function candidate(overrides: Partial<PoolCandidate> = {}): PoolCandidate {
  return {
    hostId: newId<HostId>(),
    host: "n1",
    hostState: "ready",
    schedulable: true,
    able: true,
    pool: "default",
    active: true,
    type: "dir",
    availableBytes: 10 * GIB,
    ...overrides,
  };
}

const anywhere = { pool: null, neededBytes: GIB };

describe("the pool for a volume", () => {
  test("is the one with the most room, and of equals that of the first host", () => {
    const roomy = candidate({ host: "n2", availableBytes: 20 * GIB });
    expect(choosePool(anywhere, [candidate(), roomy])).toBe(roomy);
    const twin = candidate({ host: "n0" });
    expect(choosePool(anywhere, [candidate(), twin])).toBe(twin);
  });

  test("is the named one, though another has more room", () => {
    const fast = candidate({ pool: "fast", availableBytes: 2 * GIB });
    expect(choosePool({ ...anywhere, pool: "fast" }, [candidate(), fast])).toBe(fast);
    expect(choosePool({ ...anywhere, pool: "none" }, [candidate(), fast])).toEqual([]);
  });

  test.each([
    [{ hostState: "unreachable" }, "the host is unreachable"],
    [{ schedulable: false }, "the host is cordoned"],
    [{ able: false }, "the host makes no volumes"],
    [{ active: false }, "the pool is not active"],
    [{ type: "rbd" }, "the pool is of type rbd: volumes of their own are files"],
    [{ availableBytes: GIB / 2 }, "0.5 GiB are free, 1.0 GiB are needed"],
  ])("is none of those with %j, and says why", (overrides, message) => {
    const refused = [{ host: "n1", pool: "default", message }];
    expect(choosePool(anywhere, [candidate(overrides)])).toEqual(refused);
    const fits = candidate({ host: "n2" });
    expect(choosePool(anywhere, [candidate(overrides), fits])).toBe(fits);
  });
});

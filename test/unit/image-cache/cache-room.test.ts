import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planRoom } from "../../../src/image-cache/cache-room.ts";
import { HOST_IMAGE_STATES, type HostImage } from "../../../src/image-cache/host-image.ts";
import { newId } from "../../../src/lib/ids.ts";

const copy = (sizeBytes: number, lastUsed: number, uses = 0, state: HostImage["state"] = "ready") => ({
  ...{ id: newId<HostImage["id"]>(), sizeBytes, uses, state },
  lastUsedAt: new Date(lastUsed),
});
const plenty = { availableBytes: 1000 };

describe("room for one more copy", () => {
  it("is there below the limit: nothing goes", () => {
    expect(planRoom([copy(40, 1)], 60, { limitBytes: 100, ...plenty })).toEqual([]);
  });

  it("is made by the least recently used, and by no more than are needed", () => {
    const [old, older, young] = [copy(30, 2), copy(30, 1), copy(30, 3)];
    expect(planRoom([old, older, young], 30, { limitBytes: 100, ...plenty })).toEqual([older]);
    expect(planRoom([old, older, young], 50, { limitBytes: 100, ...plenty })).toEqual([older, old]);
  });

  it("is made where the pool is full, whatever the limit", () => {
    const old = copy(30, 1);
    expect(planRoom([old], 20, { limitBytes: 1000, availableBytes: 10 })).toEqual([old]);
  });

  it("is not made by what VMs read from, nor by what comes or goes already", () => {
    const copies = [
      copy(50, 1, 1),
      copy(50, 1, 0, "filling"),
      copy(50, 1, 0, "evicting"),
      copy(50, 1, 0, "absent"),
    ];
    expect(planRoom(copies, 50, { limitBytes: 10, availableBytes: 0 })).toEqual([]);
  });

  it("never takes more than it must", () => {
    const copies = fc.array(
      fc.record({
        ...{ size: fc.integer({ min: 1, max: 50 }), at: fc.integer({ min: 0, max: 9 }) },
        ...{ uses: fc.integer({ min: 0, max: 1 }), state: fc.constantFrom(...HOST_IMAGE_STATES) },
      }),
    );
    fc.assert(
      fc.property(
        copies,
        fc.nat(100),
        fc.nat(200),
        fc.nat(200),
        (parts, needed, limitBytes, availableBytes) => {
          const all = parts.map(({ size, at, uses, state }) => copy(size, at, uses, state));
          const victims = planRoom(all, needed, { limitBytes, availableBytes });
          expect(victims.every(({ uses, state }) => uses === 0 && state === "ready")).toBe(true);
          // Without the last one there would not have been room enough.
          const fewer = all.filter((one) => !victims.slice(0, -1).includes(one));
          const freed = victims.slice(0, -1).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
          const again = planRoom(fewer, needed, { limitBytes, availableBytes: availableBytes + freed });
          expect(again).toEqual(victims.slice(-1));
        },
      ),
    );
  });
});
